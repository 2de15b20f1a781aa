/* The processes that score, on Flower's page of workers. */
(function () {
    "use strict";

    var d = window.dermq;
    var page = document.getElementById("dermq-workers");

    function row(process, now) {
        var state = process.stalled ? ["stalled", "danger"] : !process.alive ? ["no answer", "danger"] :
            process.chunk ? ["scoring", "active"] : ["idle", "quiet"];
        var chunk = "";
        if (process.chunk) {
            chunk = [
                "chunk " + process.chunk + " of ",
                d.element("a", {href: page.dataset.job.replace(/1$/, String(process.job))}, "job " + process.job)
            ];
            if (process.stalled) {
                chunk.push(d.element("div", {"class": "dermq-stall"}, process.lease_seconds_left < 0 ?
                    "Its lease ended " + d.duration(-process.lease_seconds_left) + " ago: frozen or dead." :
                    "No outcome for " + d.duration(process.silent_seconds) + ": a share that hangs, or a huge image."));
            }
        }
        return d.element("tr", {}, [
            d.element("td", {"class": "dermq-time"}, process.host),
            d.element("td", {}, process.process),
            d.element("td", {}, d.element("span", {"class": "dermq-badge dermq-badge-" + state[1]}, state[0])),
            d.element("td", {"class": "dermq-number"}, d.rate(process.images_per_second)),
            d.element("td", {"class": "dermq-time"}, process.last_image_at ?
                d.duration(d.secondsBetween(process.last_image_at, now)) + " ago" : ""),
            d.element("td", {"class": "dermq-chunk"}, chunk),
            d.element("td", {"class": "dermq-time"}, process.engine),
            d.element("td", {"class": "dermq-time"}, process.bundle)
        ]);
    }

    d.poll(function () { return page.dataset.api; }, function (answer) {
        d.replace(document.getElementById("dermq-processes"), answer.processes.map(function (process) {
            return row(process, answer.now);
        }));
        document.getElementById("dermq-empty").hidden = answer.processes.length > 0;
    });
}());
