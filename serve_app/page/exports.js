/** Give the report away: as text, JSON, FHIR or DICOM SR. */

import { ask } from "./api.js";
import { make } from "./dom.js";
import { editedText, edits } from "./report.js";

const TYPES = { fhir: ["application/fhir+json", "report.fhir.json"], sr: ["application/dicom", "report.dcm"] };

/** Export the report that `request` brought; the service renders FHIR and SR of the same answer. */
export async function exportReport(kind, report, request) {
  const text = `${editedText()}\n\n${report.notice}\n`;
  if (kind === "copy") return navigator.clipboard.writeText(text);
  if (kind === "txt") return save(new Blob([text], { type: "text/plain" }), "report.txt");
  if (kind === "json") {
    const whole = JSON.stringify({ ...report, edited: edits() }, null, 2);
    return save(new Blob([whole], { type: "application/json" }), "report.json");
  }
  const [accept, name] = TYPES[kind];
  const answer = await ask(request.path, { ...request.options, headers: { ...request.options.headers, Accept: accept } });
  return save(await answer.blob(), name);
}

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}
