"""Check FHIR R4 documents: references, invariants by FHIRPath, and the profiles of npm ``fhir``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from fhirpathpy import compile as compiled
from fhirpathpy.models import models

from tests.support.paths import ROOT

VALIDATOR = ROOT / ".cache" / "fhir"
_PROGRAM = """
const {Fhir} = require('fhir');
const document = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const result = new Fhir().validate(document, {errorOnUnexpected: true});
const problems = result.messages.filter(m => m.severity === 'error' || m.severity === 'fatal');
console.log(JSON.stringify(problems.map(m => m.location + ': ' + m.message)));
"""

# The keys are those of the specification; "ours" is what every draft must say besides.
INVARIANTS = {
    "Bundle": {
        "bdl-1": "total.empty() or type = 'searchset' or type = 'history'",
        "bdl-5": "entry.all(resource.exists() or request.exists() or response.exists())",
        "bdl-7": "entry.where(fullUrl.exists()).select(fullUrl).isDistinct()",
        "bdl-8": "entry.all(fullUrl.contains('/_history/').not())",
        "ours-fullurl": "entry.all(fullUrl = 'urn:uuid:' & resource.id)",
        "ours-research": "meta.tag.where(code = 'HRESCH').exists()",
        "ours-report": "entry.resource.where($this is DiagnosticReport).count() = 1",
        "ours-device": "entry.resource.where($this is Device).count() = 1",
        "ours-study": "entry.resource.where($this is ImagingStudy).count() = 1",
    },
    "DiagnosticReport": {
        "dom-6": "text.`div`.exists()",
        "ours-preliminary": "status = 'preliminary'",
        "ours-code": "code.coding.where(system = 'http://loinc.org' and "
        "(code = '36643-5' or code = '36554-4')).exists()",
        "ours-form": "presentedForm.where(contentType.startsWith('text/plain')).data.exists()",
        "att-1": "presentedForm.all(data.empty() or contentType.exists())",
        "ours-results": "result.count() >= 14 and result.reference.isDistinct()",
        "ours-issued": "issued.exists() and subject.exists() and imagingStudy.exists()",
    },
    "Observation": {
        "obs-6": "dataAbsentReason.empty() or value.empty()",
        "obs-7": "value.empty() or component.code.coding.code.intersect(code.coding.code).empty()",
        "qty-3": "value.where($this is Quantity).all(code.empty() or system.exists())",
        "ours-value": "value.exists()",
        "ours-preliminary": "status = 'preliminary'",
        "ours-probability": "value.where($this is Quantity).all(value >= 0 and value <= 1)",
        "ours-device": "device.exists() and derivedFrom.exists() and subject.exists()",
        "ours-notice": "note.text.where(contains('research only')).exists()",
    },
    "Device": {
        "ours-version": "version.value.exists()",
        "ours-name": "deviceName.where(type = 'model-name').name.exists()",
    },
    "ImagingStudy": {"ours-subject": "subject.exists() and status = 'available'"},
}


def problems(bundle: dict[str, Any]) -> list[str]:
    """Return every problem that the checks without npm find."""
    return [*reference_problems(bundle), *invariant_problems(bundle)]


def reference_problems(bundle: dict[str, Any]) -> list[str]:
    """Return the references that do not lead to an entry, or to one of an impossible kind."""
    kinds = {
        entry.get("fullUrl"): entry["resource"].get("resourceType")
        for entry in bundle.get("entry", [])
        if "resource" in entry
    }
    found = []
    for field, target in _references(bundle):
        if target not in kinds:
            found.append(f"{field} refers to {target}, which is not in the bundle")
        elif kinds[target] not in _TARGETS[field]:
            found.append(f"{field} refers to a {kinds[target]}")
    return found


_TARGETS = {
    "subject": {"Patient"},
    "result": {"Observation"},
    "imagingStudy": {"ImagingStudy"},
    "device": {"Device"},
    "derivedFrom": {"ImagingStudy", "Observation"},
}


def _references(node: Any, field: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "reference" in node:
            yield field, node["reference"]
        for name, child in node.items():
            yield from _references(child, name)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child, field)


def invariant_problems(bundle: dict[str, Any]) -> list[str]:
    """Return the invariants that a resource of the bundle breaks."""
    resources = [bundle] + [entry.get("resource", {}) for entry in bundle.get("entry", [])]
    found = []
    for resource in resources:
        kind = resource.get("resourceType", "")
        for key, expression in INVARIANTS.get(kind, {}).items():
            if _rule(expression)(resource) != [True]:
                found.append(f"{kind}: {key}")
    return found


@cache
def _rule(expression: str) -> Callable[[Any], list[Any]]:
    # Parsing takes a hundred times as long as evaluating.
    rule: Callable[[Any], list[Any]] = compiled(expression, model=models["r4"])
    return rule


def why_no_validator() -> str:
    """Return why npm ``fhir`` cannot run here; "" where it can."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if not (VALIDATOR / "node_modules" / "fhir").is_dir():
        return "npm fhir is not installed: scripts/fhir_validator.sh"
    return ""


def npm_problems(document: dict[str, Any]) -> list[str]:
    """Return the errors that npm ``fhir`` finds by the profiles of R4."""
    done = subprocess.run(
        ["node", "-e", _PROGRAM],
        input=json.dumps(document),
        cwd=VALIDATOR,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return list(json.loads(done.stdout))
