/** Compare the text with a reference by the service's own metric. */

import { ask } from "./api.js";
import { make } from "./dom.js";

const LOOKS = { matched: "good", different: "warn", missed: "bad", invented: "bad" };

/** Return elements that show how a text compares with a reference. */
export async function compared(candidate, reference) {
  const answer = await ask("v1/score", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ candidate, reference }),
  });
  const score = await answer.json();
  const rows = score.claims.map((claim) => make("tr", {}, make("th", { scope: "row", textContent: claim.finding }),
    make("td", { className: LOOKS[claim.verdict], textContent: claim.verdict }),
    make("td", { textContent: claim.candidate || "–" }), make("td", { textContent: claim.reference || "–" })));
  const head = make("tr", {}, ...["Finding", "Verdict", "Text", "Reference"].map((name) => make("th", { scope: "col", textContent: name })));
  return [make("p", { textContent: `RadCliQ-v1 (${score.backend}) ${score.radcliq_v1.toFixed(2)}, lower is better.` }),
    rows.length ? make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)) : make("p", { textContent: "Neither text names a finding." })];
}
