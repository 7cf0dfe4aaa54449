"""What pruning and clustering of weights share: a model fine-tuned by way of its tf_keras twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bloodedge.compress.bridge.net import as_net, constrain, twin_in
from bloodedge.compress.bridge.runtime import check_backend, tf_keras
from bloodedge.compress.bridge.twin import copy_weights_back, make_twin
from bloodedge.compress.choice import LayerChoice
from bloodedge.compress.figures import COUNTED, NOTE, layer_figures, weight_sizes
from bloodedge.compress.preserve import keeper
from bloodedge.compress.rounding import kernels_of
from bloodedge.compress.teaching import TeachingConfig, parents, refuse_features, teach
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError
from bloodedge.references import ModelReference, find_keras
from bloodedge.runs import Run, check_name, open_resumable
from bloodedge.train.config import FitConfig
from bloodedge.train.restore import restore_for
from bloodedge.train.stage import Fitted, fit_run

Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class FinetuneConfig:
    """What is fine-tuned, and how.

    Attributes:
        model: a run's name, a path, or a model of the zoo.
        name: the run to write.
        fit: how it is fine-tuned; always in float32.
        teaching: whose logits to fine-tune towards, beside the labels; None for labels alone.
        layers: names of the layers to change; empty for the default choice.
        force: replace a run of that name.
        resume: continue an interrupted run.

    Raises:
        ConfigError: settings that cannot work together, or out of range.
        RunError: a name that no run can have.
    """

    model: str
    name: str
    fit: FitConfig
    teaching: TeachingConfig | None = None
    layers: tuple[str, ...] = ()
    force: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        refuse_features(self.teaching)
        if self.fit.progressive:
            raise ConfigError("the model is tied to one image size", fix="drop --progressive")
        if self.fit.precision == "bfloat16":
            raise ConfigError(
                "--precision bfloat16 would round the weights to prune or cluster",
                expected="--precision float32",
            )
        object.__setattr__(self, "fit", replace(self.fit, precision="float32"))


@dataclass(frozen=True)
class Method:
    """One way to change weights while they are fine-tuned.

    Attributes:
        kind: the run's kind.
        choices: every layer with a kernel.
        wrap: takes a tf_keras layer that was chosen and returns it wrapped.
        strip: takes the trained tf_keras model and returns it without wrappers.
        search_from: the first epoch (from 0) whose weights may be kept.
    """

    kind: str
    choices: Sequence[LayerChoice]
    wrap: Transform
    strip: Transform
    search_from: int = 0


@dataclass(frozen=True)
class Parent:
    """The model to change: where it is from, and a copy in memory. The file is only read."""

    reference: ModelReference
    model: Any


def load_parent(config: FinetuneConfig, data: Dataset) -> Parent:
    """Find and load the model to change.

    Raises:
        ConfigError: Keras runs on another backend than TensorFlow.
        ModelError: the model is missing, damaged, or does not fit the data.
    """
    check_backend()
    reference = find_keras(config.model)
    return Parent(reference, restore_for(reference, data, "model"))


def finetune(config: FinetuneConfig, parent: Parent, method: Method, data: Dataset) -> Run:
    """Fine-tune the wrapped twin in the one training loop, and write the run folder.

    It holds an ordinary Keras 3 model like the parent. The manifest's `model` entry lists every
    layer with its figures, and the weights' sizes before and after.

    Raises:
        ModelError: the model has no twin, or the teacher is missing, damaged, or does not fit.
        RunError: the run exists, or cannot be resumed.
        TrainingError: the loss became infinite or NaN.
    """
    teachers = parents(config.teaching)
    with open_resumable(config, reads=(parent.reference.sha256, *teachers.values())) as run:
        what = Fitted(
            method.kind,
            teach(config.teaching, data, config.fit),
            _Wrapped(parent, method),
            config.fit,
            asdict(config),
            {"parent": parent.reference.sha256, **teachers},
            search_from=method.search_from,
        )
        return fit_run(what, data, run)


class _Wrapped:
    """The parent, trained by way of its wrapped twin: an `Architecture` of the training stage."""

    def __init__(self, parent: Parent, method: Method) -> None:
        self._model = parent.model
        self._origin: Mapping[str, Any] = parent.reference.manifest.get("model", {})
        self._method = method
        self._before = weight_sizes(parent.model)

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self._model.name)

    def build(self) -> Any:
        """Return the wrapped twin as a Keras 3 model."""
        chosen = {choice.name for choice in self._method.choices if not choice.reason}

        def clone(layer: Any) -> Any:
            return self._method.wrap(layer) if layer.name in chosen else layer

        twin = make_twin(self._model)
        wrapped = tf_keras().models.clone_model(twin, clone_function=clone)
        net = as_net(wrapped, int(self._model.count_params()))
        for layer in self._model.layers:
            if layer.name not in chosen:
                _keep(layer, wrapped, net)
        return net

    def fixed(self, model: Any) -> Any:
        """Return the Keras 3 model with the trained weights."""
        copy_weights_back(self._method.strip(twin_in(model)), self._model)
        return self._model

    def entry(self, model: Any, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return the parent's entry, and what became of its weights."""
        return {
            "input": "RGB pixel values 0..255; scaling is the first layer",
            "output": "logits",
            **self._origin,
            "class_names": list(class_names),
            "parameters": int(model.count_params()),
            "weights": {
                "layers": layer_figures(model, self._method.choices),
                "sizes": {"before": self._before, "after": weight_sizes(model)},
                "counted": COUNTED,
                "note": NOTE,
            },
        }


def _keep(layer: Any, twin: Any, net: Any) -> None:
    """Keep the zeros or clusters of a layer that is left alone, which training would undo."""
    for place, axes in kernels_of(layer).items():
        constraint, found = keeper(layer.get_weights()[place], axes)
        if constraint:
            constrain(net, twin.get_layer(layer.name).weights[place], constraint)
            say(f"{layer.name}: {found}, kept")
