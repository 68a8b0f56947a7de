/** Give the report away: as text, JSON, FHIR or DICOM SR. */

import { ask, ServiceError } from "./api.js";
import { make } from "./dom.js";
import { editedText, edits } from "./report.js";

const TYPES = { fhir: ["application/fhir+json", "report.fhir.json"], sr: ["application/dicom", "report.dcm"] };

/** Export the report that `request` brought; the service renders FHIR and SR of the same answer. */
export async function exportReport(kind, report, request) {
  const text = `${editedText()}\n\n${report.notice}\n`;
  if (kind === "copy") return copy(text);
  if (kind === "txt") return save(new Blob([text], { type: "text/plain" }), "report.txt");
  if (kind === "json") {
    const whole = JSON.stringify({ ...report, edited: edits() }, null, 2);
    return save(new Blob([whole], { type: "application/json" }), "report.json");
  }
  const [accept, name] = TYPES[kind];
  // The same key: the service renders the answer that it has given, while it remembers it (ten minutes).
  const answer = await ask(request.path, { ...request.options, headers: { ...request.options.headers, Accept: accept } });
  return save(await answer.blob(), name);
}

async function copy(text) {
  // Browsers give pages the clipboard on this machine and over https alone.
  if (!navigator.clipboard) throw new ServiceError("no_clipboard", "This page may not use the clipboard; take TXT instead.");
  return navigator.clipboard.writeText(text);
}

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  // Some browsers begin the download only after this task.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
