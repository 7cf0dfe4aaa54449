"""The model card beside an export: what it is for, where it came from, what it keeps and loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bloodedge.data.dataset import images_licence
from bloodedge.data.npz import BLOODMNIST_CLASSES
from bloodedge.errors import RunError
from bloodedge.files import write_text
from bloodedge.metrics import wilson_interval
from bloodedge.references import ModelReference
from bloodedge.runs import Manifest, load_run, run_folders, runs_root

CARD = "MODEL_CARD.md"
# Longer than any way of compressing; a chain that closes on itself ends here.
_MAX_STEPS = 12
_USE = """\
Research and teaching: sorting images {kind}
into the types below, on the device. **Not a diagnostic device**: not validated for any clinical
use, and no result may decide about a patient.

- It knows one laboratory's stain, microscope and camera, unless the data below says otherwise;
  expect it to be worse elsewhere, without a warning.
- {split}
- {framing}
- It always answers with one of its types, also for {strange}.
- A probability is calibrated at best for images like these."""
# Of BloodMNIST's eight types, and of any others, of which nobody told how they were taken.
_BLOOD = {
    "kind": "of single, centred, stained white blood cells and platelets",
    "split": "The split is by image: images of one person may lie on both sides, so figures are "
    "optimistic.",
    "framing": "It wants pictures framed as its own were, with one cell filling most of each: "
    "BloodMNIST's are\n  the central 200x200 of 360x363 pixels, which `bloodedge predict --crop "
    "200` cuts out.",
    "strange": "an artefact, two cells, or a type it never saw",
}
_OTHER = {
    "kind": "like those it was trained on",
    "split": "Unless the data was split by person, images of one may lie on both sides, so figures "
    "are\n  optimistic.",
    "framing": "It wants pictures framed as its own were.",
    "strange": "what is none of them",
}


def write_card(folder: Path, manifest: Manifest, parent: ModelReference) -> None:
    """Write the card of an export, whose files are in `folder` already."""
    sections = (
        ("Intended use and limits", _use(manifest.data["class_names"])),
        ("Data and licence", _data(manifest)),
        ("Figures on val", _figures(manifest)),
        ("Recall of each type on val, 95 % interval", _recalls(manifest)),
        ("Test", _test(manifest, parent.sha256)),
        ("How it was made", _steps(manifest, parent)),
        ("Files", _files(manifest)),
        ("Runtimes tried", _runtimes(manifest)),
    )
    title = f"# {manifest.name}\n\nTFLite files of `{parent.name}`, made by bloodedge."
    if any(found["failed"] for found in manifest.metrics["variants"].values()):
        title += "\n\n**Some of these files failed their gate; see the figures.**"
    body = "\n\n".join(f"## {head}\n\n{text}" for head, text in sections if text)
    write_text(folder / CARD, f"{title}\n\n{body}\n")


def _use(class_names: Sequence[str]) -> str:
    blood = tuple(class_names) == BLOODMNIST_CLASSES
    return _USE.format_map(_BLOOD if blood else _OTHER)


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", r"\|").split())


def _data(manifest: Manifest) -> str:
    data, config = manifest.data, manifest.config
    images = ", ".join(f"{count:,} {split}" for split, count in data["images"].items())
    lines = [
        f"{data['title']}: {images} images of {data['size']}x{data['size']} pixels.",
        f"Licence of the images: {images_licence(data)}.",
        f"Fingerprint (SHA-256): `{data['fingerprint']}`.",
        "",
        f"Author of the model: {config['author'] or 'not given (`--author`)'}. "
        f"Licence of the model: {config['licence'] or 'not given (`--license`)'}.",
    ]
    if data["synthetic"]:
        lines.insert(0, "**Synthetic images**: the figures mean nothing for real cells.")
    return "\n".join(lines)


def _figures(manifest: Manifest) -> str:
    def row(variant: str, found: Mapping[str, Any]) -> list[str]:
        low, high = wilson_interval(round(found["accuracy_val"] * found["images"]), found["images"])
        lost = found["parent_accuracy_val"] - found["accuracy_val"]
        drop_low, drop_high = found["accuracy_drop_95ci"]
        return [
            variant,
            f"{100 * found['accuracy_val']:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
            f"{100 * lost:.2f} [{100 * drop_low:.2f}, {100 * drop_high:.2f}]",
            f"{found['mcnemar_p']:.3g}",
            f"{100 * found['agreement']:.2f}",
            f"{found['parent_ece']:.4f} / {found['ece']:.4f}{_rise(found)}",
            f"{found['parent_brier']:.4f} / {found['brier']:.4f}",
            "; ".join(found["failed"]) or "passed",
        ]

    variants = manifest.metrics["variants"]
    heads = ("variant", "accuracy %", "lost to the parent, points", "McNemar p",
             "agreement %", "ECE before / after (in the same bins)", "Brier before / after",
             "gate")  # fmt: skip
    count = next(iter(variants.values()))["images"]
    note = (
        f"On {count:,} val images, on which the epoch was chosen too; brackets are 95 % intervals, "
        "for losses paired (Agresti and Min)."
    )
    return f"{note}\n\n{_table(heads, (row(v, f) for v, f in variants.items()))}"


def _rise(found: Mapping[str, Any]) -> str:
    # Earlier exports did not measure it.
    return f" ({found['ece_rise']:+.4f})" if "ece_rise" in found else ""


def _recalls(manifest: Manifest) -> str:
    names, variants = manifest.model["class_names"], manifest.metrics["variants"]
    counts = next(iter(variants.values()))["class_images"]

    def row(index: int) -> list[str]:
        cells = [f"{names[index]} ({counts[index]})"]
        for found in variants.values():
            if not counts[index]:
                cells.append("")
                continue
            recall = found["recall"][index]
            low, high = wilson_interval(round(recall * counts[index]), counts[index])
            cells.append(f"{100 * recall:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        return cells

    return _table(("type (images)", *variants), (row(i) for i in range(len(names))))


def _test(export: Manifest, parent_sha256: str) -> str:
    """Return the parent's figures on test if someone evaluated it on the data of the export.

    An export reads no test image itself.
    """
    evaluations = [
        manifest
        for manifest in _manifests()
        if manifest["kind"] == "evaluate"
        and manifest.get("parents", {}).get("model") == parent_sha256
        and manifest["data"].get("fingerprint") == export.data["fingerprint"]
        and "test" in manifest["metrics"]
    ]
    if not evaluations:
        return (
            "Not evaluated when this card was written: `bloodedge evaluate` reads the test images."
        )
    latest = max(evaluations, key=lambda manifest: str(manifest.get("created", "")))
    found = latest["metrics"]["test"]
    low, high = found["accuracy_95ci"]
    return (
        f"The parent: {100 * found['accuracy']:.2f} % [{100 * low:.2f}, {100 * high:.2f}] "
        f"on {found['images']:,} images (run `{latest['name']}`)."
    )


def _manifests() -> Iterator[Mapping[str, Any]]:
    for folder in run_folders(runs_root()):
        try:
            yield load_run(folder).manifest
        except RunError:
            continue


def _steps(manifest: Manifest, parent: ModelReference) -> str:
    """Follow the digests of parents from this export back to a model trained from nothing."""
    by_file = {
        str(entry.get("sha256")): made
        for made in _manifests()
        for entry in made.get("files", {}).values()
        if isinstance(entry, dict)
    }
    lines = [f"`{manifest.name}` (export): {', '.join(manifest.metrics['variants'])}"]
    pending = [(parent.sha256, parent.manifest)]
    seen = set()
    while pending and len(lines) < _MAX_STEPS:
        digest, made = pending.pop(0)
        made = made or by_file.get(digest, {})
        if digest in seen:
            continue
        seen.add(digest)
        if not made:
            lines.append(f"a model of SHA-256 `{digest[:16]}...`, whose run is not at hand")
            continue
        parameters = made.get("model", {}).get("parameters")
        size = f", {parameters:,} parameters" if isinstance(parameters, int) else ""
        lines.append(f"`{made['name']}` ({made['kind']}){size}: `{made.get('command', '')}`")
        pending += [(str(d), {}) for d in made.get("parents", {}).values()]
    return "Newest first.\n\n" + "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))


def _files(manifest: Manifest) -> str:
    def row(found: Mapping[str, Any]) -> list[str]:
        above = found["above_floor_bytes"]
        rest = found["bytes"] - found["constant_bytes"] - found["added_bytes"]
        return [
            f"`{found['file']}`",
            f"{found['bytes'] / 1000:.1f}",
            f"{found['gzip_bytes'] / 1000:.1f}",
            f"{found['constant_bytes']:,}",
            f"{rest:,}",
            f"{found['added_bytes']:,}",
            f"{above:+,} ({'above' if above > 0 else 'within'})",
        ]

    entry = manifest.model
    heads = ("file", "KB", "KB gzip", "weights and biases, bytes", "tables", "metadata and labels",
             "against the floor")  # fmt: skip
    rows = (row(found) for found in manifest.metrics["variants"].values())
    return (
        f"{_table(heads, rows)}\n\n"
        "Floor: weights and biases plus 4 KiB or 10 %; `bloodedge inspect` maps every byte.\n\n"
        f"Input: {entry['input']}. Output: {entry['output']}, in the order "
        f"{', '.join(entry['class_names'])}."
    )


def _runtimes(manifest: Manifest) -> str:
    variants = manifest.metrics["variants"]
    titles = list(next(iter(variants.values()))["runtimes"])
    rows = (
        [variant, *(found["runtimes"].get(title, "") for title in titles)]
        for variant, found in variants.items()
    )
    return (
        f"The figures above are from {manifest.config['verified_on']['runtime']}. On the machine "
        f"that made the files, a few images each:\n\n{_table(('variant', *titles), rows)}"
    )
