/** Send a study, and show its films beside the report. */

import { ask, askFilm, useKey } from "./api.js";
import { compared } from "./compare.js";
import { $, make } from "./dom.js";
import { exportReport } from "./exports.js";
import { Film, PRESETS } from "./film.js";
import { editedText, lightSentence, showReport } from "./report.js";

const EXAMPLES = 4;
/** One black pixel, in place of a film that the service did not decode again. */
const NO_FILM = { pixels: new Uint16Array(1), rows: 1, columns: 1, view: "unknown" };
let films = [];
let report;
let request;

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send(new FormData($("form")));
});
for (const [type, inside] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle("drop", inside);
    if (type === "drop" && event.dataTransfer.files.length) $("files").files = event.dataTransfer.files;
  });
}
$("preset").append(...Object.keys(PRESETS).map((name) => make("option", { textContent: name })));
$("preset").addEventListener("change", () => films.forEach((film) => film.setWindow(...PRESETS[$("preset").value])));
$("invert").addEventListener("click", () => {
  films.forEach((film) => film.invert());
  $("invert").setAttribute("aria-pressed", String(films.some((film) => film.isInverted)));
});
$("reset").addEventListener("click", () => {
  films.forEach((film) => film.reset());
  $("preset").selectedIndex = 0;
  $("invert").setAttribute("aria-pressed", "false");
});
$("region").addEventListener("change", () => showHeat(report.regions[$("region").value]));
$("key").addEventListener("change", () => useKey($("key").value));
$("compare").addEventListener("click", () => told(async () => {
  $("comparison").replaceChildren(...await compared(editedText(), $("reference").value));
}));
for (const button of document.querySelectorAll("[data-export]")) {
  button.addEventListener("click", () => told(() => exportReport(button.dataset.export, report, request)));
}
for (let number = 1; number <= EXAMPLES; number++) {
  const button = make("button", { type: "button", textContent: String(number), title: `Synthetic film ${number}` });
  button.addEventListener("click", () => told(() => sendExample(number)));
  $("examples").append(button);
}

async function sendExample(number) {
  const answer = await ask(`page/examples/${number}.png`);
  const form = new FormData($("form"));
  form.set("files", new File([await answer.blob()], `synthetic-${number}.png`));
  await send(form);
}

/** Do something that may be refused, and show why it was. */
async function told(act) {
  try {
    setStatus("");
    await act();
  } catch (error) {
    if (error.code === "unauthorized") $("key-field").hidden = false;
    setStatus(error.code ? `${error.message} (${error.code})` : error.message, true);
  }
}

async function send(form) {
  $("send").disabled = true;
  $("result").hidden = true;
  await told(async () => {
    setStatus("Reading the images and writing the report…");
    const name = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    request = { path: "v1/reports?details=true", options: { method: "POST", body: form, headers: { "Idempotency-Key": name } } };
    const answer = await ask(request.path, request.options);
    report = await answer.json();
    const [pixels, missing] = await decodedFilms(form.getAll("files"));
    show(pixels, form, missing);
  });
  $("send").disabled = false;
}

/** Return all films; where one is refused none, because which of the report's images it was would be a guess, and say why. */
async function decodedFilms(files) {
  const decoded = [];
  try {
    // One after the other: each is held whole in memory.
    for (const file of files) decoded.push(await askFilm(file));
    return [decoded, ""];
  } catch (error) {
    return [[], ` The films cannot be shown: ${error.message} (${error.code})`];
  }
}

function show(pixels, form, missing) {
  const unused = report.images_not_used ? ` ${report.images_not_used} further image(s) were not used.` : "";
  const unread = (field, name, used) => (form.get(field) && !used ? ` This model does not read the ${name}.` : "");
  setStatus(`Written in ${report.seconds.toFixed(1)} s.${unused}${unread("indication", "indication", report.indication_used)}`
    + unread("prior", "prior report", report.prior_used) + missing);
  showFilms(pixels);
  const areas = report.sentences.map(addAreas);
  showReport(report, (place, on) => areas[place].forEach((area) => area.classList.toggle("lit", on)));
  $("region").replaceChildren(make("option", { value: "", textContent: "none" }),
    ...report.regions.map((region, place) => make("option", { value: place, textContent: region.name })));
  $("probabilities").replaceChildren(...Object.entries(report.probabilities).sort((a, b) => b[1] - a[1]).map(probabilityRow));
  $("comparison").replaceChildren();
  $("origin").textContent = `Model ${report.model.version}, decoder ${report.model.decoder}, ${new Date(report.generated_at).toISOString()}`;
  $("result").hidden = false;
}

/** Show the films that the model used, in the order that its answer has: frontal ones first. */
function showFilms(pixels) {
  const left = [...pixels];
  films = report.images.map((image, place) => {
    const found = left.findIndex((each) => each.view === image.view);
    const [film = NO_FILM] = found < 0 ? [] : left.splice(found, 1);
    return new Film(film, `Film ${place + 1}, view ${image.view}${film === NO_FILM ? ", which could not be shown" : ""}`);
  });
  $("images").replaceChildren(...films.map((film, place) => make("figure", {}, film.element, make("figcaption", {
    textContent: [`${film.element.getAttribute("aria-label")}, ${report.images[place].source.toUpperCase()}`,
      ...report.images[place].warnings.map((warning) => `warning: ${warning.message}`)].join("; "),
  }))));
}

/** Outline the areas that a sentence speaks of; looking at one marks the sentence. */
function addAreas(sentence, place) {
  return sentence.regions.map((region) => {
    const area = films[region.image].addArea(region.box, region.name);
    area.addEventListener("mouseenter", () => lightSentence(place, true));
    area.addEventListener("mouseleave", () => lightSentence(place, false));
    return area;
  });
}

/** Show a region's attention over all films, which have the same scale; undefined for none. */
function showHeat(region) {
  const values = region ? region.heat.flat(2) : [];
  const low = Math.min(...values), range = Math.max(...values) - low || 1;
  films.forEach((film, place) => {
    film.showHeat(region?.heat[place].map((row) => row.map((value) => (value - low) / range)));
  });
}

function probabilityRow([name, probability]) {
  const fill = make("span");
  fill.style.width = `${100 * probability}%`;
  return make("tr", {}, make("th", { scope: "row", textContent: name }),
    make("td", {}, make("div", { className: "bar" }, fill)), make("td", { textContent: probability.toFixed(2) }));
}

function setStatus(text, failed = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", failed);
}
