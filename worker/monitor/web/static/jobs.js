/* The list of jobs. */
(function () {
    "use strict";

    var d = window.dermq;
    var page = document.getElementById("dermq-jobs");
    var operator = page.dataset.operator === "yes";
    var asked = {state: "", search: "", order: "newest", page: 1};
    var chosen = new Set();
    var shown = [];

    new URLSearchParams(window.location.search).forEach(function (value, name) {
        if (name in asked) {
            asked[name] = name === "page" ? Math.max(1, parseInt(value, 10) || 1) : value;
        }
    });

    function query() {
        return new URLSearchParams(Object.entries(asked).filter(function (pair) {
            return pair[1] !== "" && String(pair[1]) !== {order: "newest", page: "1"}[pair[0]];
        })).toString();
    }

    function address() {
        var text = query();
        return page.dataset.api + (text ? "?" + text : "");
    }

    function remember() {
        var text = query();
        history.replaceState(null, "", window.location.pathname + (text ? "?" + text : ""));
    }

    function row(job, now) {
        var cells = [];
        if (operator) {
            var box = d.element("input", {
                "class": "form-check-input", type: "checkbox", "aria-label": "Choose job " + job.id
            });
            box.checked = chosen.has(job.id);
            box.addEventListener("change", function () {
                if (box.checked) { chosen.add(job.id); } else { chosen.delete(job.id); }
                showChosen();
            });
            cells.push(d.element("td", {}, box));
        }
        var link = page.dataset.job.replace(/1$/, String(job.id));
        cells.push(d.element("td", {}, [
            d.element("a", {href: link, "class": "dermq-job-link"}, job.id + (job.name ? " " + job.name : "")),
            job.urgent ? d.element("span", {"class": "dermq-urgent"}, "urgent") : "",
            d.element("div", {"class": "dermq-small"}, job.source)
        ]));
        var stateCell = [d.badge(job)];
        if (job.hours) {
            stateCell.push(d.element("div", {"class": "dermq-small"}, job.hours));
        }
        cells.push(d.element("td", {}, stateCell));
        var percent = job.submitted ? Math.floor(100 * job.completed / job.submitted) : 0;
        var progress = [d.bar(job), d.element("div", {"class": "dermq-small"},
            percent + "% of " + d.number(job.submitted) +
            (job.images.failed ? ", " + d.number(job.images.failed) + " failed" : "") +
            (job.images.ungradable ? ", " + d.number(job.images.ungradable) + " ungradable" : ""))];
        if (job.stalled) {
            progress.push(d.element("div", {
                "class": job.needs_attention ? "dermq-stall" : "dermq-small"
            }, job.stalled));
        }
        cells.push(d.element("td", {"class": "dermq-wide"}, progress));
        cells.push(d.element("td", {"class": "dermq-number", "data-label": "Images/s"}, job.needs_attention ? "" : d.rate(job.recent_images_per_second)));
        cells.push(d.element("td", {"class": "dermq-number", "data-label": "Time left"}, d.duration(job.seconds_left)));
        cells.push(d.element("td", {"class": "dermq-number", "data-label": "High risk"}, d.number(job.flags.high_risk || 0)));
        cells.push(d.element("td", {"class": "dermq-optional"}, [job.bundle, d.element("div", {"class": "dermq-small"}, job.policy)]));
        cells.push(d.element("td", {}, [
            d.duration(d.secondsBetween(job.submitted_at, now)) + " ago",
            d.element("div", {"class": "dermq-small"}, job.submitted_by || "")
        ]));
        return d.element("tr", {"data-job": job.id}, cells);
    }

    function text(id, value) {
        document.getElementById(id).textContent = value;
    }

    function showChosen() {
        if (!operator) {
            return;
        }
        document.getElementById("dermq-bulk").hidden = chosen.size === 0;
        text("dermq-chosen", chosen.size === 1 ? "1 job chosen" : chosen.size + " jobs chosen");
        document.getElementById("dermq-all").checked = shown.length > 0 && shown.every(function (id) {
            return chosen.has(id);
        });
    }

    function show(answer) {
        var counts = answer.by_status;
        shown = answer.jobs.map(function (job) { return job.id; });
        // Focus stays where it is while rows are renewed.
        var active = document.activeElement, where = active && active.closest("#dermq-rows tr");
        var index = where ? Array.prototype.indexOf.call(where.querySelectorAll("a, input"), active) : -1;
        d.replace(document.getElementById("dermq-rows"), answer.jobs.map(function (job) {
            return row(job, answer.now);
        }));
        if (where) {
            var again = document.querySelector('#dermq-rows tr[data-job="' + where.dataset.job + '"]');
            var target = again && again.querySelectorAll("a, input")[index];
            if (target) {
                target.focus({preventScroll: true});
            }
        }
        text("sum-open", d.number((counts.submitting || 0) + (counts.queued || 0) + (counts.running || 0)));
        text("sum-attention", d.number(answer.attention));
        text("sum-paused", d.number(counts.paused || 0));
        text("sum-finished", d.number(counts.finished || 0));
        text("dermq-page", "Page " + answer.page + " of " + answer.pages + ", " + d.number(answer.total) +
            (answer.total === 1 ? " job" : " jobs"));
        document.getElementById("dermq-previous").disabled = answer.page <= 1;
        document.getElementById("dermq-next").disabled = answer.page >= answer.pages;
        var empty = document.getElementById("dermq-empty");
        empty.hidden = answer.total > 0;
        empty.textContent = asked.search || asked.state ? "No job fits." :
            "There are no jobs yet. Submit one: dermq submit FOLDER";
        showChosen();
    }

    var refresh = d.poll(address, show);

    function change(values) {
        Object.assign(asked, {page: 1}, values);
        remember();
        refresh();
    }

    function showState() {
        document.querySelectorAll("#dermq-states button").forEach(function (button) {
            var active = button.dataset.state === asked.state;
            button.classList.toggle("active", active);
            button.setAttribute("aria-pressed", String(active));
        });
    }

    document.getElementById("dermq-states").addEventListener("click", function (event) {
        var button = event.target.closest("button");
        if (button) {
            change({state: button.dataset.state});
            showState();
        }
    });
    showState();
    var order = document.getElementById("dermq-order");
    order.value = asked.order;
    order.addEventListener("change", function () { change({order: order.value}); });
    var search = document.getElementById("dermq-search"), typing = null;
    search.value = asked.search;
    search.addEventListener("input", function () {
        clearTimeout(typing);
        typing = setTimeout(function () { change({search: search.value.trim()}); }, 250);
    });
    document.getElementById("dermq-previous").addEventListener("click", function () {
        change({page: Math.max(1, asked.page - 1)});
    });
    document.getElementById("dermq-next").addEventListener("click", function () { change({page: asked.page + 1}); });
    if (operator) {
        document.getElementById("dermq-all").addEventListener("change", function (event) {
            shown.forEach(function (id) {
                if (event.target.checked) { chosen.add(id); } else { chosen.delete(id); }
            });
            refresh();
        });
        document.getElementById("dermq-bulk").addEventListener("click", function (event) {
            var button = event.target.closest("button");
            if (button) {
                d.act(page.dataset.actions, button.dataset.action, Array.from(chosen)).then(function () {
                    chosen.clear();
                    refresh();
                });
            }
        });
    }
}());
