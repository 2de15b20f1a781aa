/* One job. */
(function () {
    "use strict";

    var d = window.dermq;
    var page = document.getElementById("dermq-job");
    var number = parseInt(page.dataset.number, 10);
    var OPEN = ["submitting", "queued", "running"];

    function byId(id) {
        return document.getElementById(id);
    }

    function line(cells) {
        return d.element("tr", {}, cells.map(function (cell, index) {
            var numeric = typeof cell === "number";
            return d.element("td", numeric ? {"class": "dermq-number"} : {},
                numeric ? d.number(cell) : cell);
        }));
    }

    function outcomes(job) {
        var flags = ["high_risk", "borderline", "lower_priority"].map(function (flag) {
            return line([d.words(flag), job.flags[flag] || 0]);
        });
        var rest = ["ungradable", "failed", "waiting"].map(function (name) {
            return line([name, job.images[name] || 0]);
        });
        var rows = flags.concat(rest, [line(["submitted", job.submitted])]);
        if (job.reused) {
            rows.push(line(["of these, scored earlier and reused", job.reused]));
        }
        return rows;
    }

    function failures(job) {
        var rows = Object.entries(job.failures).map(function (pair) {
            return line(["failed: " + d.words(pair[0]), pair[1]]);
        }).concat(Object.entries(job.ungradable_reasons).map(function (pair) {
            return line(["ungradable: " + d.words(pair[0]), pair[1]]);
        }));
        return rows.length ? rows : [line(["none so far", ""])];
    }

    function seconds(value) {
        return value === null ? "" : value.toFixed(1);
    }

    function chunkRows(chunks) {
        function rows(list, what) {
            return list.map(function (chunk) {
                return d.element("tr", {}, [
                    d.element("td", {}, String(chunk.id)),
                    d.element("td", {}, what(chunk)),
                    d.element("td", {"class": "dermq-time"}, chunk.worker),
                    d.element("td", {"class": "dermq-number"}, String(chunk.attempt)),
                    d.element("td", {"class": "dermq-number"}, seconds(chunk.seconds))
                ]);
            });
        }
        return rows(chunks.held, function (chunk) {
            return chunk.lease_seconds_left < 0 ?
                d.element("span", {"class": "dermq-stall"}, "lease ended " + d.duration(-chunk.lease_seconds_left) + " ago") :
                "leased for " + d.duration(chunk.lease_seconds_left);
        }).concat(
            rows(chunks.retried, function () { return "claimed several times"; }),
            rows(chunks.slowest, function () { return "slow"; })
        );
    }

    function detail(entry) {
        var facts = Object.entries(entry.detail).filter(function (pair) {
            return pair[0] !== "bundle_sha256";
        }).map(function (pair) {
            var value = typeof pair[1] === "number" && !Number.isInteger(pair[1]) ? pair[1].toFixed(3) : pair[1];
            return d.words(pair[0]) + " " + value;
        });
        return entry.action + (facts.length ? ": " + facts.join(", ") : "");
    }

    function buttons(job) {
        var open = OPEN.indexOf(job.status) >= 0;
        var possible = {
            pause: open && job.status !== "submitting",
            resume: job.status === "paused",
            cancel: open || job.status === "paused",
            retry: (job.images.failed || 0) > 0 && ["finished", "queued", "running"].indexOf(job.status) >= 0
        };
        document.querySelectorAll(".dermq-buttons button").forEach(function (button) {
            button.hidden = !possible[button.dataset.action];
        });
    }

    function show(answer) {
        var job = answer.job;
        byId("job-name").textContent = job.name || "";
        d.replace(byId("job-state"), [d.badge(job)]);
        byId("job-about").textContent = [
            job.source, job.urgent ? "urgent" : "bulk", job.bundle, job.policy,
            job.hours ? "between " + job.hours : "",
            "submitted " + d.duration(d.secondsBetween(job.submitted_at, answer.now)) + " ago" +
                (job.submitted_by ? " by " + job.submitted_by : "")
        ].filter(Boolean).join(" · ");
        d.replace(byId("job-bar"), [d.bar(job)]);
        d.replace(byId("job-legend"), ["scored", "ungradable", "failed", "waiting"].map(function (name) {
            return d.element("span", {}, [
                d.element("i", {"class": "dermq-key dermq-" + name, "aria-hidden": "true"}),
                d.number(job.images[name] || 0) + " " + name
            ]);
        }));
        byId("job-done").textContent = d.number(job.completed) + " of " + d.number(job.submitted);
        byId("job-rate").textContent = d.rate(job.recent_images_per_second) || "—";
        byId("job-left").textContent = d.duration(job.seconds_left) || "—";
        byId("job-high").textContent = d.number(job.flags.high_risk || 0);
        d.replace(byId("job-rate-plot"), [window.dermqPlots.rate(answer.rate, job.started_at)]);
        d.replace(byId("job-histogram"), [
            window.dermqPlots.histogram(answer.histogram, job.threshold, job.borderline_threshold)
        ]);
        d.replace(byId("job-outcomes"), outcomes(job));
        d.replace(byId("job-failures"), failures(job));
        var download = byId("job-download");
        if (download) {
            download.hidden = !(job.images.failed || job.images.ungradable);
        }
        var chunks = answer.chunks.by_status;
        byId("job-chunks").textContent = ["waiting", "leased", "done"].map(function (name) {
            return d.number(chunks[name] || 0) + " " + name;
        }).join(", ");
        d.replace(byId("job-chunk-rows"), chunkRows(answer.chunks));
        d.replace(byId("job-audit"), answer.audit.map(function (entry) {
            return d.element("tr", {}, [
                d.element("td", {"class": "dermq-time"}, d.time(entry.at)),
                d.element("td", {"class": "dermq-time"}, entry.actor),
                d.element("td", {}, detail(entry))
            ]);
        }));
        buttons(job);
        if (!job.stalled) {
            return [];
        }
        return [d.element("p", {"class": job.needs_attention ? "dermq-alert" : "dermq-info"}, [
            d.element("strong", {}, job.needs_attention ? "This job does not progress: " : ""), job.stalled
        ])];
    }

    var refresh = d.poll(function () { return page.dataset.api; }, show);

    document.querySelectorAll(".dermq-buttons button").forEach(function (button) {
        button.addEventListener("click", function () {
            d.act(page.dataset.actions, button.dataset.action, [number]).then(refresh);
        });
    });
}());
