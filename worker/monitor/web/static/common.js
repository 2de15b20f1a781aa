/* What the pages of dermq share: fetching, building elements, and shapes of numbers. */
(function () {
    "use strict";

    var INTERVAL = 2000;
    var HIDDEN_INTERVAL = 10000;
    var PATIENCE = 8000;

    /** An element with text and attributes. Text is never taken for HTML. */
    function element(tag, attributes, content) {
        var made = document.createElement(tag);
        Object.keys(attributes || {}).forEach(function (name) {
            if (attributes[name] !== null && attributes[name] !== undefined) {
                made.setAttribute(name, attributes[name]);
            }
        });
        [].concat(content === undefined || content === null || content === "" ? [] : content).forEach(function (part) {
            made.append(part instanceof Node ? part : String(part));
        });
        return made;
    }

    function replace(parent, children) {
        parent.replaceChildren.apply(parent, children);
    }

    function number(value) {
        return Math.round(value).toLocaleString("en");
    }

    function rate(value) {
        if (value === null || value === undefined) {
            return "";
        }
        return value >= 10 ? number(value) : value.toFixed(1);
    }

    /** Seconds as two units: 3 h 20 min. */
    function duration(seconds) {
        if (seconds === null || seconds === undefined) {
            return "";
        }
        var s = Math.max(0, Math.round(seconds));
        if (s < 60) {
            return s + " s";
        }
        if (s < 3600) {
            return Math.floor(s / 60) + " min" + (s < 600 ? " " + (s % 60) + " s" : "");
        }
        if (s < 86400) {
            return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
        }
        return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
    }

    function secondsBetween(earlier, later) {
        return (new Date(later) - new Date(earlier)) / 1000;
    }

    /** A time where the reader is: 2026-11-30 20:39. */
    function time(text) {
        var at = new Date(text);
        function two(value) { return String(value).padStart(2, "0"); }
        return at.getFullYear() + "-" + two(at.getMonth() + 1) + "-" + two(at.getDate()) + " " +
            two(at.getHours()) + ":" + two(at.getMinutes());
    }

    function words(code) {
        return String(code).replaceAll("_", " ");
    }

    /** The bar of a job: scored, ungradable, failed, waiting. */
    function bar(job) {
        var parts = ["scored", "ungradable", "failed"];
        var percent = job.submitted ? Math.floor(100 * job.completed / job.submitted) : 0;
        var label = parts.concat("waiting").map(function (name) {
            return number(job.images[name] || 0) + " " + name;
        }).join(", ");
        var made = element("div", {
            "class": "dermq-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100,
            "aria-valuenow": percent, "aria-label": label, title: label
        });
        parts.forEach(function (name) {
            var images = job.images[name] || 0;
            if (images) {
                var part = element("span", {"class": "dermq-part dermq-" + name});
                part.style.width = 100 * images / job.submitted + "%";
                made.append(part);
            }
        });
        return made;
    }

    /** The state of a job in its colour. */
    function badge(job) {
        var colours = {
            interrupted: "danger", stalled: "danger", running: "active", finished: "success", paused: "warning"
        };
        return element("span", {"class": "dermq-badge dermq-badge-" + (colours[job.state] || "quiet")}, job.state);
    }

    /** The failing checks and the state of the connection, above a page. */
    function showHealth(health) {
        var alerts = [];
        if (health && health.checked) {
            health.checks.forEach(function (check) {
                if (!check.ok && check.checked) {
                    alerts.push(element("p", {"class": "dermq-alert"}, [
                        element("strong", {}, words(check.component) + ": "), check.text
                    ]));
                }
            });
        }
        return alerts;
    }

    function setAlerts(alerts) {
        var place = document.getElementById("dermq-alerts");
        var text = alerts.map(function (each) { return each.textContent; }).join("\n");
        // Only when it changes: a screen reader would say it again.
        if (place.dataset.shown !== text) {
            place.dataset.shown = text;
            replace(place, alerts);
        }
    }

    function live(ok, text) {
        document.getElementById("dermq-dot").className = "status-dot " + (ok ? "status-dot-live" : "dermq-dot-off");
        var place = document.getElementById("dermq-live");
        if (place.textContent !== text) {
            place.textContent = text;
        }
    }

    function refused(answer) {
        return answer.json().catch(function () { return {}; }).then(function (body) {
            throw new Error(body.error || "The answer was " + answer.status + ".");
        });
    }

    /** Wait for an answer, but not for ever: what is shown would be old, and nobody would know. */
    function get(address) {
        var asked = {credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(PATIENCE)};
        return fetch(address, asked).then(function (answer) {
            return answer.ok ? answer.json() : refused(answer);
        }, function (error) {
            throw new Error(error.name === "TimeoutError" ? "dermq has not answered for " + PATIENCE / 1000 +
                " seconds. The database may be held up." : "Flower does not answer.");
        });
    }

    function post(address, body) {
        return fetch(address, {
            method: "POST", credentials: "same-origin", headers: {"Content-Type": "application/json"},
            body: JSON.stringify(body)
        }).then(function (answer) {
            return answer.ok ? answer.json() : refused(answer);
        });
    }

    /** Fetch again and again, one request at a time, and show the answer. Returns a function that fetches now. */
    function poll(address, show) {
        var timer = null, wanted = 0;
        function again() {
            clearTimeout(timer);
            timer = setTimeout(now, document.hidden ? HIDDEN_INTERVAL : INTERVAL);
        }
        function now() {
            clearTimeout(timer);
            wanted += 1;
            var mine = wanted;
            return get(address()).then(function (answer) {
                if (mine === wanted) {
                    live(true, "Live");
                    setAlerts(showHealth(answer.health).concat(show(answer) || []));
                }
            }).catch(function (error) {
                if (mine === wanted) {
                    live(false, "Not up to date");
                    setAlerts([element("p", {"class": "dermq-alert"}, [
                        element("strong", {}, "Not up to date: "), error.message + " Trying again."
                    ])]);
                }
            }).finally(function () {
                if (mine === wanted) {
                    again();
                }
            });
        }
        document.addEventListener("visibilitychange", function () {
            if (!document.hidden) {
                now();
            }
        });
        now();
        return now;
    }

    /** Ask once. Resolves to whether the person agrees. */
    function ask(question, yes) {
        var dialog = document.getElementById("dermq-dialog");
        document.getElementById("dermq-question").textContent = question;
        document.getElementById("dermq-yes").textContent = yes;
        dialog.returnValue = "no";
        dialog.showModal();
        return new Promise(function (resolve) {
            dialog.addEventListener("close", function () {
                resolve(dialog.returnValue === "yes");
            }, {once: true});
        });
    }

    function toast(text, bad) {
        var made = element("div", {
            "class": "toast align-items-center border-0 text-bg-" + (bad ? "danger" : "success"),
            role: bad ? "alert" : "status", "aria-atomic": "true"
        }, element("div", {"class": "d-flex"}, [
            element("div", {"class": "toast-body"}, text),
            element("button", {
                type: "button", "class": "btn-close btn-close-white me-2 m-auto", "data-bs-dismiss": "toast",
                "aria-label": "Close"
            })
        ]));
        document.getElementById("toast-container").append(made);
        made.addEventListener("hidden.bs.toast", function () { made.remove(); });
        bootstrap.Toast.getOrCreateInstance(made, {delay: 8000}).show();
    }

    var QUESTIONS = {
        pause: ["Pause", "Workers stop after their current batch."],
        resume: ["Resume", "Workers continue."],
        cancel: ["Cancel", "Outcomes so far are kept. A cancelled job cannot be resumed."],
        retry: ["Retry the failed images of", "Failed images are read and scored again."]
    };

    /** Ask, then carry out an action on jobs. */
    function act(address, action, jobs) {
        var what = jobs.length === 1 ? "job " + jobs[0] : jobs.length + " jobs";
        var question = QUESTIONS[action];
        var others = jobs.length > 1 ? " Jobs in another state stay as they are." : "";
        return ask(question[0] + " " + what + "? " + question[1] + others, "Yes, " + action).then(function (agreed) {
            if (!agreed) {
                return;
            }
            return post(address, {action: action, jobs: jobs}).then(function (answer) {
                var bad = answer.results.filter(function (each) { return !each.done; });
                var good = answer.results.length - bad.length;
                if (good && answer.results.length > 1) {
                    toast(good + " of " + answer.results.length + " jobs changed.", false);
                } else if (good) {
                    toast(answer.results[0].text, false);
                }
                bad.slice(0, 5).forEach(function (each) { toast(each.text, true); });
            }).catch(function (error) { toast(error.message, true); });
        });
    }

    window.dermq = {
        element: element, replace: replace, number: number, rate: rate, duration: duration, words: words, bar: bar,
        badge: badge, time: time, poll: poll, act: act, secondsBetween: secondsBetween
    };
}());
