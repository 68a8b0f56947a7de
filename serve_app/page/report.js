/** Show the sentences of a report, which people edit, accept and reject. */

import { $, make } from "./dom.js";

let items = [];

/** Show the report; `light(place, on)` is told when a sentence is looked at. */
export function showReport(report, light) {
  $("abstained").hidden = !report.abstain;
  $("abstained").textContent = `No report: ${report.reasons.map((reason) => reason.message).join("; ")}.`;
  $("written").textContent = report.section === "impression" ? "Impression" : "Findings";
  items = report.sentences.map((sentence, place) => item(sentence, place, light));
  $("findings").replaceChildren(...items);
  const cut = report.complete || report.abstain ? [] : [{ message: "The report was cut at the length limit." }];
  $("doubts").replaceChildren(...[...cut, ...(report.flags ?? [])].map((flag) => make("li", { textContent: flag.message })));
}

/** Return the text as edited, without rejected sentences. */
export function editedText() {
  return items.filter((each) => each.dataset.state !== "rejected").map((each) => each.firstChild.textContent.trim()).join(" ");
}

/** Return what people did to each sentence. */
export function edits() {
  return items.map((each) => ({ text: each.firstChild.textContent.trim(), state: each.dataset.state }));
}

/** Mark a sentence as the one that an area on a film belongs to. */
export function lightSentence(place, on) {
  items[place]?.classList.toggle("lit", on);
}

function item(sentence, place, light) {
  const text = make("span", { className: "text", contentEditable: "plaintext-only", textContent: sentence.text });
  text.setAttribute("role", "textbox");
  text.setAttribute("aria-label", `Sentence ${place + 1}`);
  const line = make("li", {}, text);
  line.dataset.state = "open";
  line.append(make("span", { className: "row" }, choice(line, "accepted", "Accept"), choice(line, "rejected", "Reject")));
  for (const flag of sentence.flags ?? []) line.append(make("span", { className: "doubt", textContent: flag.message }));
  for (const [type, on] of [["mouseenter", true], ["mouseleave", false], ["focusin", true], ["focusout", false]]) {
    line.addEventListener(type, () => light(place, on));
  }
  return line;
}

function choice(line, state, name) {
  const button = make("button", { type: "button", textContent: name });
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    line.dataset.state = line.dataset.state === state ? "open" : state;
    for (const each of line.querySelectorAll("button")) {
      each.setAttribute("aria-pressed", String(each === button && line.dataset.state === state));
    }
  });
  return button;
}
