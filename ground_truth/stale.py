"""When is a stored reference stale? When it was made from anything that this run would make differently.

- the case: any field that can change a bit of output (``Case.digest``);
- the checkpoint: the digest of any component, a component more or fewer;
- torch, diffusers, transformers: their public versions. The label after ``+`` names a build of the same release
  (``2.13.0+cpu``) and does not count;
- the device: ``cpu`` or the accelerator's product name. The same request on another accelerator is another cohort.

Everything else in the ledger (Python, numpy, triton, the CPU's model, driver, flags, threads, variables) is recorded
and shown, and is not a reason to refuse: whether it moves a bit is what the comparison is there to find out. The rule
is the same for every kind: the engine under test is not in it, so that ``self`` references survive the changes they
judge.
"""

from __future__ import annotations

from typing import Any

from conformance.case import Case
from conformance.jsonio import jsonable
from ground_truth.manifest import Manifest, identity


def differences(
    manifest: Manifest, case: Case, checkpoint: dict[str, str], ledger: dict[str, Any], where: str
) -> list[str]:
    """What the reference was made from and this run is not, one text a difference; empty when it is fresh."""
    found = []
    if manifest.case_digest != case.digest:
        found += _changed("case", _flat(manifest.case), _flat(jsonable(case.as_dict())))
    found += _changed("checkpoint", manifest.checkpoint, checkpoint)
    found += _changed("environment", identity(manifest.ledger, where), identity(ledger, "this run"))
    return found


def _changed(what: str, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = [name for name in {**then, **now} if name != "suites" and then.get(name) != now.get(name)]
    return [f"{what} {name} was {_short(then.get(name))}, is {_short(now.get(name))}" for name in names]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names: ``request.video_guidance.cfg``."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {f"{prefix}{name}": item}
    return flat
