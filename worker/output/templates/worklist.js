"use strict";
// Findings stay in this browser, and leave it only by the button.
const body = document.body, list = document.getElementById("cases");
const cases = Array.from(document.querySelectorAll(".case"));
// Images without a score, which have findings of their own.
const unscored = Array.from(document.querySelectorAll(".lost"));
const byFlag = document.getElementById("by-flag"), byText = document.getElementById("by-text");
const openOnly = document.getElementById("open-only"), order = document.getElementById("order");
const reviewer = document.getElementById("reviewer"), enlarged = document.getElementById("enlarged");
let current = -1, findings = {};
// The picture that is shown enlarged.
let looked = null;

function load() {
  try { findings = JSON.parse(localStorage.getItem(body.dataset.key) || "{}"); } catch { findings = {}; }
}
function store() {
  try { localStorage.setItem(body.dataset.key, JSON.stringify(findings)); } catch {
    document.getElementById("count").textContent = "This browser keeps nothing: save the findings before you close the page.";
  }
}
function idOf(item) { return item.dataset.lesion && item.classList.contains("case") ? "lesion " + item.dataset.lesion : "path " + item.dataset.path; }
function fields(item) {
  return { reviewed: item.querySelector(".reviewed"), finding: item.querySelector(".finding"), diagnosis: item.querySelector(".diagnosis"), comment: item.querySelector(".comment") };
}
// By the reader's calendar, and not by that of Greenwich.
function today() {
  const now = new Date();
  return [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
}
function show(item) {
  const found = findings[idOf(item)] || {}, inputs = fields(item);
  inputs.reviewed.checked = Boolean(found.reviewed);
  inputs.finding.value = found.finding || "";
  inputs.diagnosis.value = found.diagnosis || "";
  inputs.comment.value = found.comment || "";
  item.classList.toggle("done", Boolean(found.reviewed));
}
function keep(item) {
  const inputs = fields(item);
  findings[idOf(item)] = {
    reviewed: inputs.reviewed.checked, finding: inputs.finding.value, diagnosis: inputs.diagnosis.value,
    comment: inputs.comment.value, reviewer: reviewer.value.trim(), date: today(),
  };
  item.classList.toggle("done", inputs.reviewed.checked);
  store();
  count();
}
function isOpen(item) { return !(findings[idOf(item)] || {}).reviewed; }
function filter() {
  const text = byText.value.trim().toLowerCase();
  for (const item of cases) {
    const words = [item.dataset.words, item.dataset.lesion, item.dataset.patient || ""].join(" ").toLowerCase();
    item.hidden = Boolean((byFlag.value && item.dataset.flag !== byFlag.value) || (text && !words.includes(text)) || (openOnly.checked && !isOpen(item)));
  }
  count();
}
function count() {
  const shown = cases.filter((item) => !item.hidden).length, reviewed = cases.filter((item) => !isOpen(item)).length;
  const open = unscored.filter(isOpen).length;
  document.getElementById("count").textContent = `${shown} of ${cases.length} cases shown, ${reviewed} reviewed` + (open ? `; ${open} without a score not reviewed` : "") + filtered();
}
// On paper, too: a part of a worklist must not pass for the whole.
function filtered() {
  const parts = [byFlag.value && `flag ${byFlag.value}`, byText.value.trim() && `text "${byText.value.trim()}"`, openOnly.checked && "not reviewed yet"].filter(Boolean);
  return parts.length ? `. Filter: ${parts.join(", ")}` : "";
}
function sort() {
  const key = order.value;
  const inOrder = {
    path: (a, b) => a.dataset.path.localeCompare(b.dataset.path),
    malignant: (a, b) => (b.dataset.malignant || 0) - (a.dataset.malignant || 0) || a.dataset.rank - b.dataset.rank,
    rank: (a, b) => a.dataset.rank - b.dataset.rank,
  };
  cases.sort(inOrder[key]);
  list.append(...cases);
}
function step(by) {
  const shown = cases.filter((item) => !item.hidden);
  if (!shown.length) { return; }
  let place = shown.indexOf(cases[current]);
  place = place < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.min(Math.max(place + by, 0), shown.length - 1);
  mark(shown[place]);
}
function mark(item) {
  if (current >= 0) { cases[current].classList.remove("current"); }
  current = cases.indexOf(item);
  item.classList.add("current");
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
}
function cell(text) {
  // A spreadsheet must not run a comment.
  const safe = /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
  return '"' + safe.replaceAll('"', '""') + '"';
}
function save() {
  const rows = [["job", "rank", "path", "lesion_id", "probability", "flag", "reviewed", "finding", "diagnosis", "comment", "reviewer", "date"]];
  for (const item of [...unscored, ...[...cases].sort((a, b) => a.dataset.rank - b.dataset.rank)]) {
    const found = findings[idOf(item)] || {};
    // By its path alone: the lesion may have other images, of which this finding says nothing.
    const lesion = item.classList.contains("case") ? item.dataset.lesion : "";
    rows.push([body.dataset.job, item.dataset.rank || "", item.dataset.path, lesion, item.dataset.probability || "", item.dataset.flag || "ungradable", found.reviewed ? "yes" : "no", found.finding || "", found.diagnosis || "", found.comment || "", found.reviewer || "", found.date || ""]);
  }
  const text = "\ufeff" + rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `findings-of-job-${body.dataset.job}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
// Where the calibrated probabilities hold: 14 of 100 lesions are melanomas (docs/worklist.md).
const calibratedAt = 0.14;
function adjust(probability, share) {
  const odds = probability / (1 - probability) * (share / (1 - share)) / (calibratedAt / (1 - calibratedAt));
  return odds / (1 + odds);
}
function percent(probability) { return probability < 0.01 ? "under 1" : String(Math.round(100 * probability)); }
function predict() {
  const chosen = document.getElementById("prevalence"), sensitivity = Number(body.dataset.sensitivity);
  if (!chosen) { return; }
  for (const item of cases) {
    item.querySelector(".adjusted").textContent = `about ${percent(adjust(Number(item.dataset.probability), Number(chosen.value)))} in 100`;
  }
  // By the share that is flagged here: other diagnoses, and lesions with many images, are flagged more often than nevi.
  const share = Number(chosen.value), flagged = Math.max(Number(body.dataset.flagged), sensitivity * share);
  const melanomas = Math.round(100 * sensitivity * share / flagged), missed = (1000 * share * (1 - sensitivity)).toFixed(1);
  document.getElementById("predictive").textContent = `Then about ${melanomas} of 100 high-risk cases are melanomas, and of 1,000 lesions about ${missed} melanomas are below the threshold.`;
}
// A map of n by n bytes covers the model's square input, of which the picture is a part or which is a part of it.
function placed(width, height) {
  const longer = Math.max(width, height), shorter = Math.min(width, height);
  if (body.dataset.fit === "contain") { return { from: [(1 - width / longer) / 2, (1 - height / longer) / 2, width / longer, height / longer], to: [0, 0, width, height] }; }
  if (body.dataset.fit === "cover") { return { from: [0, 0, 1, 1], to: [(width - shorter) / 2, (height - shorter) / 2, shorter, shorter] }; }
  return { from: [0, 0, 1, 1], to: [0, 0, width, height] };
}
function drawn(image, text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), side = Math.round(Math.sqrt(bytes.length));
  const small = document.createElement("canvas"), canvas = document.createElement("canvas");
  small.width = small.height = side;
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = small.getContext("2d"), pixels = context.createImageData(side, side);
  // From a third of the greatest value on, so that the picture below is seen.
  bytes.forEach((value, place) => pixels.data.set([0, 255, 255, 0.8 * Math.max(0, value - 85)], 4 * place));
  context.putImageData(pixels, 0, 0);
  const { from, to } = placed(canvas.width, canvas.height), large = canvas.getContext("2d");
  large.imageSmoothingQuality = "high";
  large.drawImage(small, ...from.map((part) => part * side), ...to);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Heat map: bright places speak for melanoma");
  return canvas;
}
function showMap(picture, wanted) {
  const text = picture.dataset.evidence, shown = picture.querySelector("canvas"), image = picture.querySelector("img");
  if (text === undefined) { return null; }
  picture.parentElement.querySelector(".empty-map").hidden = !wanted || text !== "";
  if (text === "" || wanted === Boolean(shown)) { return null; }
  if (!wanted) { shown.remove(); return null; }
  image.loading = "eager";
  return image.decode().then(() => { if (!picture.querySelector("canvas")) { picture.append(drawn(image, text)); } }, () => {});
}
const near = "IntersectionObserver" in window ? new IntersectionObserver((entries) => {
  for (const entry of entries) { if (entry.isIntersecting) { showMap(entry.target, true); } }
}, { rootMargin: "400px" }) : null;
// Enlarged: as large as the window, with its heat map where that is shown.
function enlarge(picture) {
  looked = picture;
  const frame = enlarged.querySelector(".picture"), item = picture.closest(".case, .lost"), map = picture.querySelector("canvas");
  const image = picture.querySelector("img").cloneNode();
  image.loading = "eager";
  frame.replaceChildren(image);
  if (map) {
    const copy = map.cloneNode();
    copy.getContext("2d").drawImage(map, 0, 0);
    frame.append(copy);
  }
  const words = picture.parentElement.querySelector("figcaption").innerText.replaceAll("\n", ". ");
  const score = item.dataset.rank ? `Rank ${item.dataset.rank}, ${item.dataset.flag}` : "No score";
  enlarged.querySelector(".place").textContent = `${score}${isOpen(item) ? "" : ", reviewed"}: ${words}`;
  if (cases.includes(item) && cases[current] !== item) { mark(item); }
  if (!enlarged.open) { enlarged.showModal(); }
}
function lookBeside(by) {
  const pictures = [...looked.closest(".case, .lost").querySelectorAll(".picture")];
  enlarge(pictures[Math.min(Math.max(pictures.indexOf(looked) + by, 0), pictures.length - 1)]);
}
function lookAt(item) {
  const picture = item.querySelector(".picture");
  if (picture) { enlarge(picture); } else { enlarged.close(); }
}
document.querySelector("main").addEventListener("click", (event) => {
  if (event.target.matches(".picture img")) { enlarge(event.target.parentElement); }
});
enlarged.addEventListener("click", (event) => { if (event.target.matches("img, button, dialog")) { enlarged.close(); } });
enlarged.addEventListener("close", () => {
  if (current >= 0 && !cases[current].contains(document.activeElement)) { cases[current].focus({ preventScroll: true }); }
});
enlarged.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) { lookBeside(by); event.preventDefault(); }
});
document.getElementById("larger").addEventListener("change", (event) => {
  body.classList.toggle("large", event.target.checked);
  if (current >= 0) { cases[current].scrollIntoView({ block: "nearest" }); }
});
// Drawn when they come near the window: a page has up to 10,000 of them.
function showMaps(wanted) {
  document.getElementById("about-maps").hidden = !wanted;
  for (const picture of document.querySelectorAll("[data-evidence]")) {
    if (wanted && near) { near.observe(picture); } else { near?.unobserve(picture); showMap(picture, wanted); }
  }
}
function mapsOf(item) {
  const pictures = [...item.querySelectorAll("[data-evidence]")], wanted = !item.querySelector("canvas, .empty-map:not([hidden])");
  if (pictures.length) { document.getElementById("about-maps").hidden = !wanted; }
  Promise.all(pictures.map((picture) => showMap(picture, wanted))).then(() => { if (enlarged.open) { enlarge(looked); } });
}
load();
reviewer.value = findings.reviewer || "";
reviewer.addEventListener("input", () => { findings.reviewer = reviewer.value; store(); });
[...cases, ...unscored].forEach(show);
filter();
predict();
for (const item of [...cases, ...unscored]) {
  item.addEventListener("change", () => keep(item));
  item.querySelector(".comment").addEventListener("input", () => keep(item));
}
byFlag.addEventListener("change", filter);
byText.addEventListener("input", filter);
openOnly.addEventListener("change", filter);
order.addEventListener("change", sort);
document.getElementById("maps")?.addEventListener("change", (event) => showMaps(event.target.checked));
document.getElementById("save").addEventListener("click", save);
document.getElementById("prevalence")?.addEventListener("change", predict);
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=checkbox]), select, textarea, main button, nav button") || event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key === "Escape") { event.target.blur(); }
    return;
  }
  if (event.key === "z" && enlarged.open) { enlarged.close(); return; }
  if (event.key === "j" || event.key === "k") { step(event.key === "j" ? 1 : -1); event.preventDefault(); }
  const item = enlarged.open && event.key !== "j" && event.key !== "k" ? looked.closest(".case, .lost") : cases[current];
  if (!item) { return; }
  if (event.key === "z" || (enlarged.open && (event.key === "j" || event.key === "k"))) { lookAt(item); }
  if (event.key === "r") { fields(item).reviewed.click(); }
  if (event.key === "h") { mapsOf(item); }
  if (event.key === "f") { enlarged.close(); fields(item).finding.focus(); event.preventDefault(); }
  if (event.key === "r" && enlarged.open) { enlarge(looked); }
});
