"""What commands share before they start: the cheap refusals come before the heavy imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import typer

    from bloodedge.compress.targets import KdConfig
    from bloodedge.compress.teaching import TeachingConfig
    from bloodedge.data.dataset import Dataset
    from bloodedge.hosts import Hosts
    from bloodedge.references import ModelReference


# What has no meaning unless somebody teaches.
TEACHING = ("--method", "--temperature", "--alpha", "--teacher-views")


def refuse_unheeded(
    context: typer.Context, options: Sequence[str], why: str, *, expected: str = "", fix: str = ""
) -> None:
    """Refuse options that were typed, if only with their default, but would change nothing.

    Args:
        context: of the command.
        options: which of its options nothing heeds, such as `--alpha`; each by its first name.
        why: what makes it so, such as `without --teacher`.
        expected: see `BloodedgeError`.
        fix: likewise.

    Raises:
        ConfigError: some were typed; it names them all.
        LookupError: the command has no such option, so that it would never be refused. The user
            cannot mend that.
    """
    from bloodedge.errors import ConfigError

    known = {option.opts[0]: option for option in context.command.params}
    if unknown := [name for name in options if name not in known]:
        raise LookupError(
            f"{context.info_name} has no {', '.join(unknown)}; expected names of its options; to "
            "mend it rename or remove them where they are refused"
        )
    given = []
    for name, option in known.items():
        source = context.get_parameter_source(option.name or "")
        if name in options and source and source.name == "COMMANDLINE":
            # Of --renorm/--no-renorm the second is what was typed.
            off = option.secondary_opts and not context.params[option.name or ""]
            given.append((option.secondary_opts if off else option.opts)[0])
    if given:
        raise ConfigError(f"{', '.join(given)} {why}", expected=expected, fix=fix)


def refuse_calibration(context: typer.Context, formats: Sequence[str]) -> None:
    """Refuse --calibration-per-class where nothing is calibrated.

    Args:
        context: of the command.
        formats: of the files to write.

    Raises:
        ConfigError: it was typed, and none of them is calibrated.
    """
    from bloodedge.deploy.audit import CALIBRATED

    if not set(formats) & set(CALIBRATED):
        refuse_unheeded(
            context,
            ("--calibration-per-class",),
            f"with {', '.join(formats)}",
            expected=", ".join(CALIBRATED),
        )


def refuse_temperature(context: typer.Context, method: str) -> None:
    """Refuse --temperature with a method that has none.

    Raises:
        ConfigError: it was typed.
    """
    if method == "dist":
        refuse_unheeded(context, ("--temperature",), "with --method dist", fix="leave it out")


def start_backend(
    context: typer.Context, backend: str | None, models: Sequence[ModelReference]
) -> None:
    """Start Keras on a backend if a model needs it.

    Raises:
        ConfigError: --backend was typed, and none does.
    """
    from bloodedge.backend import use_backend

    if all(model.is_tflite for model in models):
        refuse_unheeded(context, ("--backend",), "without a Keras model")
    else:
        use_backend(backend)


def refuse_other_data(context: typer.Context, models: Iterable[str]) -> None:
    """Refuse --data's default with models of other data, before it is downloaded.

    Files in MedMNIST's layout (.npz) may well hold the default's own images and classes.

    Args:
        context: of the command.
        models: runs, files or zoo names, as the command takes them: also those that teach.

    Raises:
        ConfigError: --data was not given, and a model's manifest names other data.
        ModelError: no such model.
    """
    from bloodedge.errors import ConfigError
    from bloodedge.references import find_all

    source = context.get_parameter_source("data")
    if source is None or source.name != "DEFAULT":
        return
    default = context.params["data"]
    for model in find_all(models):
        trained = model.manifest.get("data", {})
        name, title = trained.get("name"), trained.get("title")
        given = {"folder": "and that folder", "synthetic": "synthetic", "official": name}
        origin = trained.get("origin")
        words = "" if (origin, name) == ("official", default) else given.get(origin)
        if words:
            raise ConfigError(
                f"{model.name} was trained on {title}, not on {default}, the default",
                fix=f"add --data {words}",
            )


def start_training(
    data: str,
    *,
    size: int | None,
    backend: str | None,
    devices: str = "1",
    batch: int = 1,
    hosts: Hosts | None = None,
) -> Dataset:
    """Load the data and make Keras ready on its backend and devices, together with other hosts.

    Raises:
        ConfigError: no such backend, so many devices cannot share a batch, or the hosts do not
            meet.
        DataError: the data is missing or damaged.
    """
    from bloodedge.backend import check_backend, use_backend
    from bloodedge.data.sources import load_data
    from bloodedge.hosts import join
    from bloodedge.interrupts import end_at_once
    from bloodedge.train.device import check_batch, check_hosts, spread_over

    chosen = check_backend(backend)
    if hosts and hosts.count > 1:
        check_hosts(chosen, devices)
        end_at_once()
    images = load_data(data, size=size)
    if hosts:
        join(hosts)
    use_backend(backend, side_by_side=devices != "1")
    if spread_over(devices, batch) > 1:
        check_batch(batch, len(images["train"]))
    return images


def teaching_config(
    teachers: Sequence[str] | None,
    *,
    method: str,
    temperature: float,
    alpha: float | None,
    views: int,
    logits: str = "",
    live: bool = False,
) -> TeachingConfig:
    """Return who teaches, and how; `alpha` None is the method's own.

    Raises:
        ConfigError: settings that cannot work together, or out of range.
    """
    from bloodedge.compress.teaching import TeachingConfig

    kd = loss_config(method, temperature, alpha)
    return TeachingConfig(tuple(teachers or ()), kd, views, logits, live)


def loss_config(method: str, temperature: float, alpha: float | None) -> KdConfig:
    """Return the distillation loss; `alpha` None is the method's own.

    Raises:
        ConfigError: an unknown method, or a value out of range.
    """
    from bloodedge.compress.targets import KdConfig

    return KdConfig(temperature, alpha, method)


def optional_teaching(
    context: typer.Context,
    teachers: Sequence[str] | None,
    *,
    method: str,
    temperature: float,
    alpha: float | None,
    views: int,
) -> TeachingConfig | None:
    """Return who teaches a fine-tuning, and how; None if nobody was named.

    Raises:
        ConfigError: as `teaching_config`, or nobody was named and it was said how to learn.
        ModelError: a teacher is missing.
    """
    from bloodedge.compress.teaching import parents

    if not teachers:
        refuse_unheeded(
            context, TEACHING, "without --teacher", fix="name a teacher, or leave them out"
        )
        return None
    refuse_temperature(context, method)
    config = teaching_config(
        teachers, method=method, temperature=temperature, alpha=alpha, views=views
    )
    parents(config)
    return config
