/* Two small plots as SVG, in the colours of the page. */
(function () {
    "use strict";

    var d = window.dermq;
    var SVG = "http://www.w3.org/2000/svg";
    var WIDTH = 560, HEIGHT = 190, LEFT = 44, RIGHT = 12, TOP = 12, BOTTOM = 30;

    function shape(tag, attributes, text) {
        var made = document.createElementNS(SVG, tag);
        Object.keys(attributes).forEach(function (name) { made.setAttribute(name, attributes[name]); });
        if (text !== undefined) {
            made.textContent = text;
        }
        return made;
    }

    function canvas(label) {
        return shape("svg", {
            viewBox: "0 0 " + WIDTH + " " + HEIGHT, role: "img", "aria-label": label, "class": "dermq-plot"
        });
    }

    /** A round number at or above a value: 1, 2 or 5 times a power of ten. */
    function roundUp(value) {
        var power = Math.pow(10, Math.floor(Math.log10(Math.max(value, 1e-9))));
        return [1, 2, 5, 10].map(function (step) { return step * power; }).find(function (top) {
            return top >= value;
        });
    }

    function frame(svg, top, labels) {
        [0, 0.5, 1].forEach(function (part) {
            var y = HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM);
            svg.append(shape("line", {x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y, "class": "dermq-grid"}));
            svg.append(shape("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"},
                top >= 10 || part === 0 ? d.number(part * top) : (part * top).toFixed(1)));
        });
        labels.forEach(function (label) {
            svg.append(shape("text", {
                x: LEFT + label[0] * (WIDTH - LEFT - RIGHT), y: HEIGHT - 8,
                "text-anchor": label[0] === 0 ? "start" : label[0] === 1 ? "end" : "middle"
            }, label[1]));
        });
    }

    function ratePlot(points, started) {
        if (!points.length) {
            return d.element("p", {"class": "dermq-empty"}, "No image has an outcome yet.");
        }
        var highest = Math.max.apply(null, points.map(function (point) { return point.images_per_second; }));
        var top = roundUp(highest || 1);
        var svg = canvas("Images per second over time, at most " + d.rate(highest));
        var last = points[points.length - 1].at;
        frame(svg, top, [[0, d.time(started)], [1, d.time(last)]]);
        var step = (WIDTH - LEFT - RIGHT) / points.length, base = HEIGHT - BOTTOM;
        var path = "M" + LEFT + " " + base;
        points.forEach(function (point, index) {
            var y = base - point.images_per_second / top * (base - TOP);
            path += " L" + (LEFT + index * step).toFixed(1) + " " + y.toFixed(1);
            path += " L" + (LEFT + (index + 1) * step).toFixed(1) + " " + y.toFixed(1);
        });
        svg.append(shape("path", {d: path + " L" + (WIDTH - RIGHT) + " " + base + " Z", "class": "dermq-area"}));
        return svg;
    }

    function histogram(bins, threshold, borderline) {
        var total = bins.reduce(function (sum, bin) { return sum + bin; }, 0);
        if (!total) {
            return d.element("p", {"class": "dermq-empty"}, "No image is scored yet.");
        }
        // The square root, so that a few suspicious images are seen beside many others.
        var top = Math.max.apply(null, bins);
        var svg = canvas("Scored images by calibrated probability, with the threshold at " + threshold.toFixed(3));
        var base = HEIGHT - BOTTOM, width = WIDTH - LEFT - RIGHT, step = width / bins.length;
        [0, 0.25, 1].forEach(function (part) {
            var y = base - Math.sqrt(part) * (base - TOP);
            svg.append(shape("line", {x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y, "class": "dermq-grid"}));
            svg.append(shape("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, d.number(part * top)));
        });
        ["0", "0.5", "1"].forEach(function (label, index) {
            svg.append(shape("text", {
                x: LEFT + index / 2 * width, y: HEIGHT - 8, "text-anchor": ["start", "middle", "end"][index]
            }, label));
        });
        bins.forEach(function (bin, index) {
            var height = Math.sqrt(bin / top) * (base - TOP), middle = (index + 0.5) / bins.length;
            var kind = middle >= threshold ? "high" : middle >= borderline ? "borderline" : "lower";
            svg.append(shape("rect", {
                x: LEFT + index * step + 0.5, y: base - height, width: Math.max(step - 1, 1), height: height,
                "class": "dermq-bin-" + kind
            }));
        });
        var x = LEFT + threshold * width;
        svg.append(shape("line", {x1: x, x2: x, y1: TOP - 4, y2: base, "class": "dermq-threshold"}));
        svg.append(shape("text", {
            x: x + (threshold > 0.6 ? -6 : 6), y: TOP + 6, "text-anchor": threshold > 0.6 ? "end" : "start"
        }, "threshold " + threshold.toFixed(3)));
        return svg;
    }

    window.dermqPlots = {rate: ratePlot, histogram: histogram};
}());
