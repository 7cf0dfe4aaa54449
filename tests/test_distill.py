"""Distillation: losses against their formulas, stored answers, live teachers, the stage."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.cli.starting import loss_config
from bloodedge.compress import losses
from bloodedge.compress.bank import (
    BankFile,
    BankKey,
    read_bank,
    teacher_answers,
    write_bank,
)
from bloodedge.compress.distill import DistillConfig, distill
from bloodedge.compress.features import with_features
from bloodedge.compress.targets import METHODS, KdConfig, LiveTeachers, SoftLabels
from bloodedge.compress.teaching import TeachingConfig, parents, teach
from bloodedge.data.dataset import Dataset, Split
from bloodedge.errors import ConfigError, DataError, ModelError, RunError
from bloodedge.references import find_model
from bloodedge.runs import load_run
from bloodedge.train.augment import NO_AUGMENTATION, AugmentConfig, view_of
from bloodedge.train.checkpoint import Checkpoints
from bloodedge.train.config import FitConfig
from bloodedge.train.feed import Feed
from bloodedge.train.loop import predict_logits
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.restore import restore
from bloodedge.train.stage import TrainConfig, train
from bloodedge.train.trainer import Trainer

QUICK = FitConfig(epochs=2, batch=16, learning_rate=5e-3)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def quick_train(data: Dataset, name: str, fit: FitConfig = QUICK):
    return train(TrainConfig("cnn_se", fit, name, 0.25), data)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * (np.log(p) - np.log(q))).sum(axis=-1)


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("alpha", "temperature"), [(0.0, 4.0), (1.0, 1.0), (0.7, 3.0)])
def test_distillation_loss_is_the_published_formula(alpha: float, temperature: float):
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(5, 8, 4)).astype(np.float16)
    labels = np.array([0, 1, 2, 3, 0])
    targets = SoftLabels(labels, bank, KdConfig(temperature, alpha))
    index, views = np.array([3, 1]), np.array([7, 2])
    rows = targets.for_batch(index, views)
    logits = rng.normal(size=(2, 4)).astype(np.float32)
    teacher = bank[index, views].astype(np.float64)
    p, q = softmax(teacher / temperature), softmax(logits / temperature)
    kl = (p * (np.log(p) - np.log(q))).sum(axis=1)
    ce = -np.log(softmax(logits)[np.arange(2), labels[index]])
    expected = (1 - alpha) * ce + alpha * temperature**2 * kl
    np.testing.assert_allclose(np.asarray(targets.loss(rows, logits)), expected, rtol=1e-4)


def test_a_bank_of_fewer_views_drops_the_transpose_first():
    bank = np.arange(4, dtype=np.float16)[None, :, None] * np.ones((1, 4, 2), np.float16)
    rows = SoftLabels(np.array([0]), bank, KdConfig()).for_batch(np.zeros(8, int), np.arange(8))
    np.testing.assert_array_equal(rows[:, 2], [0, 1, 2, 3, 0, 1, 2, 3])


def test_the_student_gets_the_answers_to_the_views_that_it_sees():
    labels = np.arange(16) % 3
    numbers = np.arange(16)[:, None] * 8 + np.arange(8)
    bank = np.repeat(numbers[..., None], 3, axis=2).astype(np.float16)
    split = Split(np.zeros((16, 8, 8, 3), np.uint8), labels)
    feed = Feed(split, SoftLabels(labels, bank, KdConfig()), FitConfig(1, 16), by_index=True)
    ((inputs, rows),) = feed.epoch(0)
    assert len(set(inputs["view"])) > 1
    np.testing.assert_array_equal(rows[:, 3], numbers[inputs["index"], inputs["view"]])


def test_without_a_teacher_the_labels_are_smoothed(colours: Dataset):
    targets = teach(None, colours, replace(QUICK, label_smoothing=0.3))
    rows = targets.for_batch(np.arange(4), np.zeros(4, np.int64))
    expected = 0.7 * np.eye(3)[colours["train"].labels[:4]] + 0.1
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_the_bank_holds_the_teachers_logits_of_each_view(colours: Dataset, monkeypatch):
    quick_train(colours, "teacher", FitConfig(1, 16))
    reference = find_model("teacher")
    key = BankKey(reference.sha256, colours.fingerprint, 8)
    teacher = restore(reference)
    bank = teacher_answers(key, teacher, colours)
    images = np.ascontiguousarray(view_of(colours["train"].images, 5))
    np.testing.assert_allclose(bank[:, 5], predict_logits(teacher, images), atol=0.01)

    def refuse(*args, **kwargs):
        raise AssertionError("the teacher ran again")

    monkeypatch.setattr("bloodedge.compress.bank.predict_logits", refuse)
    np.testing.assert_array_equal(teacher_answers(key, teacher, colours), bank)
    key.path.write_bytes(key.path.read_bytes()[:100])
    with pytest.raises(DataError):
        teacher_answers(key, teacher, colours)


def test_a_bank_of_features_gives_the_logits_of_its_views(colours: Dataset, monkeypatch):
    quick_train(colours, "teacher", FitConfig(1, 16))
    reference = find_model("teacher")
    teach(TeachingConfig(("teacher",), KdConfig(method="feature"), views=2), colours, QUICK)
    logits = BankKey(reference.sha256, colours.fingerprint, 2)
    features = replace(logits, what="features")
    assert (features.path.exists(), logits.path.exists()) == (True, False)
    teacher = restore(reference)
    plain = predict_logits(teacher, colours["train"].images).astype(np.float16)

    ran = []

    def run(net, images, label=""):
        ran.append(label)
        return predict_logits(net, images)

    monkeypatch.setattr("bloodedge.compress.bank.predict_logits", run)
    bank = teacher_answers(logits, teacher, colours)
    assert bank.shape == (len(plain), 2, 3)
    np.testing.assert_allclose(bank[:, 0], plain, atol=2e-3)
    assert ran == []
    # Other views are another bank; features are never taken for logits.
    teacher_answers(replace(logits, views=1), teacher, colours)
    assert ran == ["teacher logits, view 1/1"]
    # A bank that was interrupted after a view gives that one.
    with np.load(features.path) as arrays:
        np.savez(features.path, view0=arrays["view0"])
    np.testing.assert_array_equal(teacher_answers(logits, teacher, colours)[:, 0], bank[:, 0])
    assert ran[1:] == ["teacher logits, view 2/2"]
    # What is wrong with it is said of the file that is wrong.
    logits.path.unlink()
    np.savez(features.path, view0=np.zeros((5, 9), np.float16))
    with pytest.raises(DataError, match=f"{features.path.name} do not fit"):
        teacher_answers(logits, teacher, colours)


def test_distilling_learns_and_records_its_teacher(colours: Dataset):
    # Batch norm's running statistics need some hundred steps.
    longer = FitConfig(epochs=25, batch=16, learning_rate=5e-3)
    quick_train(colours, "teacher", longer)
    run = distill(
        DistillConfig(TeachingConfig(("teacher",)), "cnn_se", longer, "student", width=0.25),
        colours,
    )
    assert run.manifest["kind"] == "distill"
    assert run.manifest["parents"] == {"teacher": find_model("teacher").sha256}
    assert run.manifest["metrics"]["val"]["accuracy"] > 0.9


def test_a_teacher_of_other_classes_or_size_is_refused(colours: Dataset):
    quick_train(colours, "teacher", FitConfig(1, 16))
    config = DistillConfig(TeachingConfig(("teacher",)), "cnn_se", QUICK, "student", width=0.25)
    two = {name: type(s)(s.images, s.labels % 2) for name, s in colours.splits.items()}
    with pytest.raises(ModelError, match="3 classes, the data 2"):
        distill(config, Dataset("two", "npz", "two", ("a", "b"), two, {}))
    small = {n: type(s)(s.images[:, ::2, ::2], s.labels) for n, s in colours.splits.items()}
    with pytest.raises(ModelError, match="16x16 images, the data has 8"):
        distill(config, Dataset("small", "npz", "small", ("r", "g", "b"), small, {}))
    turned = replace(colours, class_names=colours.class_names[::-1])
    with pytest.raises(ModelError, match="the data's classes in another order"):
        distill(config, turned)
    assert not (load_run(find_model("teacher").path.parent).path.parent / "student").exists()


def test_another_temperature_does_not_continue_an_interrupted_distillation(
    colours: Dataset, monkeypatch
):
    quick_train(colours, "teacher", FitConfig(1, 16))

    save = Checkpoints.save

    def interrupt(self, progress):
        save(self, progress)
        raise KeyboardInterrupt

    config = DistillConfig(TeachingConfig(("teacher",)), "cnn_se", QUICK, "student", width=0.25)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(config, colours)
    colder = TeachingConfig(("teacher",), KdConfig(temperature=2.0))
    changed = replace(config, teaching=colder, resume=True)
    with pytest.raises(RunError, match="another teaching"):
        distill(changed, colours)


def test_an_unknown_teacher_suggests_the_nearest(colours: Dataset):
    quick_train(colours, "teacher", FitConfig(1, 16))
    with pytest.raises(ModelError, match="did you mean 'teacher'"):
        distill(DistillConfig(TeachingConfig(("teachr",)), "cnn_se", QUICK, "student"), colours)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-hot labels, and logits of a teacher and a student."""
    rng = np.random.default_rng(1)
    label = np.eye(5, dtype=np.float32)[[0, 3, 4, 3, 1, 2]]
    return label, *(rng.normal(size=(2, 6, 5)) * 2).astype(np.float32)


def test_decoupled_distillation_is_the_two_parts_of_the_published_formula(pair):
    label, teacher, student = pair
    t = 4.0
    p, q = softmax(teacher / t), softmax(student / t)
    own = label.argmax(1)
    pt, qt = p[np.arange(6), own], q[np.arange(6), own]
    target = kl(np.stack([pt, 1 - pt], 1), np.stack([qt, 1 - qt], 1))
    rest = ~label.astype(bool)
    others = kl(
        p[rest].reshape(6, 4) / (1 - pt)[:, None], q[rest].reshape(6, 4) / (1 - qt)[:, None]
    )
    # The authors' identity: plain distillation weighs the second part by 1 - p_target.
    np.testing.assert_allclose(kl(p, q), target + (1 - pt) * others, rtol=1e-4)
    found = np.asarray(losses.dkd(label, teacher, student, t))
    np.testing.assert_allclose(found, t**2 * (target + 8 * others), rtol=1e-3)


def test_dist_is_one_minus_pearson_within_images_and_within_classes(pair):
    _, teacher, student = pair
    p, q = softmax(teacher), softmax(student)
    between = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    within = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    found = np.asarray(losses.dist(teacher, student))
    np.testing.assert_allclose(found, np.array(between) + within, rtol=1e-4)


def test_similarity_compares_which_images_are_alike_whatever_the_basis():
    rng = np.random.default_rng(2)
    teacher, student = rng.normal(size=(6, 8)), rng.normal(size=(6, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    turned = (3 * teacher @ turn).astype(np.float32)
    same = losses.similarity(teacher.astype(np.float32), turned)
    np.testing.assert_allclose(np.asarray(same), 0, atol=1e-6)

    def gram(f):
        g = f @ f.T
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    found = losses.similarity(teacher.astype(np.float32), student.astype(np.float32))
    expected = ((gram(teacher) - gram(student)) ** 2).sum(1)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4)


OF_ZEROS = """
from bloodedge.backend import use_backend
use_backend("jax")
import jax, numpy as np
from bloodedge.compress import losses

teacher = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
dead = np.concatenate([np.zeros((1, 8), np.float32), 0.7 * teacher[1:]])
sure = np.tile(np.float32([110] + 7 * [0]), (4, 1))
for loss in (losses.dist, losses.similarity):
    for student in (np.zeros_like(teacher), dead, sure):
        gradient = jax.grad(lambda found: loss(teacher, found).mean())(student)
        assert np.isfinite(gradient).all(), (loss, student)
"""


@pytest.mark.skipif(util.find_spec("jax") is None, reason="jax is not installed")
def test_what_has_no_length_has_a_gradient():
    """An image without features, classes that are equally likely, one that nobody doubts."""
    # JAX takes the derivative of a root at zero as it is: infinite, and NaN times zero.
    done = subprocess.run(
        [sys.executable, "-c", OF_ZEROS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("method", METHODS)
def test_a_live_teacher_and_its_stored_answers_give_the_same_loss(method: str, colours: Dataset):
    """Where the student sees the plain views, nothing is left that could differ."""
    teacher = build(ModelConfig("cnn_se", 3, 16, 0.5))
    student = build(ModelConfig("cnn_se", 3, 16, 0.25))
    # Dropout would make the two passes of the student differ.
    for net in (teacher, student):
        net.get_layer("dropout").rate = 0.0
    config = KdConfig(3.0, METHODS[method], method)
    images, labels = colours["train"].images[:16], colours["train"].labels[:16]
    whole = with_features(teacher) if method == "feature" else teacher
    answers = predict_logits(whole, images)[:, None, :]
    features = answers[..., 3:] if method == "feature" else None
    stored = SoftLabels(labels, answers[..., :3], config, features)
    live = LiveTeachers(labels, (teacher,), config)
    index, views = np.arange(16), np.zeros(16, np.int64)
    found = [
        np.asarray(
            targets.loss(
                targets.for_batch(index, views), targets.respond(student)(images.astype("float32"))
            )
        )
        for targets in (stored, live)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_several_live_teachers_teach_by_their_mean(colours: Dataset):
    one, two = (build(ModelConfig("cnn_se", 3, 16, 0.25)) for _ in range(2))
    images = colours["train"].images[:4]
    live = LiveTeachers(colours["train"].labels, (one, two), KdConfig())
    rows = np.asarray(live.respond(one)(images.astype("float32")))
    mean = (predict_logits(one, images) + predict_logits(two, images)) / 2
    np.testing.assert_allclose(rows[:, 3:], mean, rtol=1e-4, atol=1e-5)


def test_a_live_teacher_is_left_as_it_was(colours: Dataset):
    teacher, student = (build(ModelConfig("cnn_se", 3, 16, 0.25)) for _ in range(2))
    before = [net.get_weights() for net in (teacher, student)]
    fit = replace(QUICK, augment=AugmentConfig(mixup=1.0))
    config = KdConfig(4.0, 1.0, "patient")
    live = LiveTeachers(colours["train"].labels, (teacher,), config)
    Trainer(student, colours["train"], live, fit).train_epoch(0, 16)
    for old, new in zip(before[0], teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert all((a != b).any() for a, b in zip(before[1], student.get_weights(), strict=True))


def test_patient_distillation_needs_no_label(colours: Dataset):
    """A student that never saw a label follows its teacher."""
    quick_train(colours, "teacher", FitConfig(6, 16, 5e-3))
    fit = FitConfig(10, 16, 5e-3, augment=AugmentConfig(mixup=1.0))
    teaching = TeachingConfig(("teacher",), KdConfig(4.0, 1.0, "patient"), live=True)
    train_split = colours["train"]
    blind = type(train_split)(train_split.images, np.zeros_like(train_split.labels))
    unlabelled = replace(colours, splits={**colours.splits, "train": blind})
    run = distill(DistillConfig(teaching, "cnn_se", fit, "student", width=0.25), unlabelled)
    assert run.manifest["metrics"]["val"]["accuracy"] > 0.9


def test_stored_logits_of_several_teachers_are_the_mean_of_their_centred_logits(colours: Dataset):
    quick_train(colours, "a", FitConfig(1, 16))
    quick_train(colours, "b", FitConfig(1, 16, seed=1))
    targets = teach(TeachingConfig(("a", "b"), views=1), colours, QUICK)
    images = colours["train"].images
    logits = [predict_logits(restore(find_model(name)), images) for name in ("a", "b")]
    expected = np.mean([z - z.mean(axis=1, keepdims=True) for z in logits], axis=0)
    rows = targets.for_batch(np.arange(len(images)), np.zeros(len(images), np.int64))
    np.testing.assert_allclose(rows[:, 3:6], expected, atol=0.02)


def test_a_teacher_computes_in_the_precision_of_the_fit(colours: Dataset):
    quick_train(colours, "teacher", FitConfig(1, 16))
    half = replace(QUICK, precision="bfloat16")
    index, views = np.arange(len(colours["train"])), np.zeros(len(colours["train"]), np.int64)
    found = []
    for fit in (half, QUICK):
        targets = teach(TeachingConfig(("teacher",), views=1), colours, fit)
        found.append(targets.for_batch(index, views)[:, 3:])
    # Another file holds each, and bfloat16 has eight bits.
    assert 0 < np.abs(found[0] - found[1]).max() < 0.05 * np.abs(found[1]).max()
    live = teach(TeachingConfig(("teacher",), live=True), colours, half)
    classroom = live.respond(build(ModelConfig("cnn_se", 3, 64, 0.25)))
    assert classroom.teachers[0].compute_dtype == "bfloat16"


def test_kept_logits_teach_without_the_teacher(colours: Dataset, tmp_path):
    quick_train(colours, "teacher", FitConfig(1, 16))
    # A file of any name.
    kept = str(tmp_path / "logits.bin")
    with_teacher = teach(TeachingConfig(("teacher",), logits=kept), colours, QUICK)
    alone = teach(TeachingConfig((), logits=kept), colours, QUICK)
    index, views = np.arange(8), np.arange(8)
    np.testing.assert_array_equal(
        alone.for_batch(index, views), with_teacher.for_batch(index, views)
    )
    assert read_bank(tmp_path / "logits.bin", colours).teachers == ("teacher",)
    assert [path.name for path in tmp_path.glob("*logits*")] == ["logits.bin"]
    assert not list(tmp_path.glob(".bloodedge-partial-*"))
    other = {n: type(s)(s.images[::-1].copy(), s.labels) for n, s in colours.splits.items()}
    with pytest.raises(DataError, match="belong to other images"):
        teach(TeachingConfig((), logits=kept), replace(colours, splits=other), QUICK)


def test_logits_that_are_missing_are_one_clear_error(tmp_path):
    config = TeachingConfig((), logits=str(tmp_path / "missing.npz"))
    said = r"missing\.npz cannot be read: No such file.*to mend it: give --teacher to write it"
    with pytest.raises(DataError, match=said):
        parents(config)


def test_kept_logits_replace_no_other_file(tmp_path):
    path = tmp_path / "cells.npz"
    np.savez(path, images=np.zeros(3))
    bank = BankFile(np.zeros((4, 1, 3), np.float16), ("t",), "data")
    with pytest.raises(DataError, match=r"exists and holds no teacher logits; .*another"):
        write_bank(bank, path)
    with np.load(path) as arrays:
        assert arrays.files == ["images"]
    path.unlink()
    for _ in range(2):
        write_bank(bank, path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"view0": np.zeros((192, 3), np.float16)}, "holds no teacher logits"),
        ({"logits": np.full((192, 1, 2), 0, np.float16)}, "do not fit"),
        ({"logits": np.full((192, 3, 3), 0, np.float16)}, "do not fit"),
        ({"logits": np.full((192, 1, 3), np.nan, np.float16)}, "not all finite"),
    ],
)
def test_damaged_logits_are_refused(arrays, message: str, colours: Dataset, tmp_path):
    path = tmp_path / "logits.npz"
    if "logits" in arrays:
        write_bank(BankFile(arrays["logits"], ("t",), colours.fingerprint), path)
    else:
        np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        read_bank(path, colours)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teachers": ()}, "no teacher"),
        ({"teachers": ("a", "b"), "kd": KdConfig(method="feature")}, "feature with 2 teachers"),
        ({"teachers": (), "logits": "f", "kd": KdConfig(method="feature")}, "with 0 teachers"),
        (
            {"teachers": ("a",), "logits": "f", "kd": KdConfig(method="feature")},
            "keeps no features",
        ),
        ({"teachers": ("a",), "kd": KdConfig(4.0, 1.0, "patient")}, "live teacher"),
        ({"teachers": (), "logits": "f", "live": True}, "answers for itself"),
        ({"teachers": ("a",), "views": 3}, "--teacher-views 3"),
    ],
)
def test_teaching_that_cannot_work_is_refused_when_built(settings, message: str):
    with pytest.raises(ConfigError, match=message):
        TeachingConfig(**settings)


def test_blended_images_need_a_live_teacher():
    fit = replace(QUICK, augment=replace(NO_AUGMENTATION, mixup=0.2))
    with pytest.raises(ConfigError, match="add --live"):
        DistillConfig(TeachingConfig(("a",)), "cnn_se", fit, "student")


def test_patient_distillation_knows_no_labels():
    with pytest.raises(ConfigError, match="drop --alpha"):
        KdConfig(4.0, 0.5, "patient")


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(ConfigError, match="kd, dkd, dist, patient, feature"):
        KdConfig(method="hint")


def test_features_need_a_dense_head():
    import keras

    image = keras.Input((16, 16, 3))
    net = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image), name="means")
    with pytest.raises(ModelError, match="means ends in GlobalAveragePooling2D"):
        with_features(net)


@pytest.mark.parametrize(
    ("other", "whose"),
    [
        ({"teachers": ("t", "u")}, "of t, not of t, u;"),
        ({"data": "others"}, "of other images;"),
        ({"logits": np.ones((4, 1, 3), np.float16)}, "of another teacher of that name"),
        ({"logits": np.zeros((4, 2, 3), np.float16)}, "or --teacher-views;"),
    ],
)
def test_kept_logits_replace_no_other_logits(other: dict[str, Any], whose: str, tmp_path: Path):
    path = tmp_path / "logits.npz"
    bank = BankFile(np.zeros((4, 1, 3), np.float16), ("t",), "data")
    write_bank(bank, path)
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"holds teacher logits .*{whose}.* or add --force"):
        write_bank(replace(bank, **other), path)
    assert path.read_bytes() == before
    write_bank(replace(bank, **other), path, force=True)
    assert path.read_bytes() != before


def test_other_logits_are_seen_before_a_teacher_computes(
    colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    quick_train(colours, "teacher", FitConfig(1, 16))
    kept = tmp_path / "logits.npz"
    write_bank(BankFile(np.zeros((4, 1, 3), np.float16), ("b",), colours.fingerprint), kept)
    monkeypatch.setattr("bloodedge.compress.teaching.teacher_answers", None)
    with pytest.raises(DataError, match=r"of b, not of teacher; .*choose another"):
        teach(TeachingConfig(("teacher",), logits=str(kept)), colours, QUICK)


def test_force_replaces_other_logits_once_they_are_there_and_nothing_else(
    colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept, cells = tmp_path / "logits.npz", tmp_path / "cells.npz"
    quick_train(colours, "teacher", FitConfig(1, 16))
    np.savez(cells, images=np.zeros(3))
    write_bank(BankFile(np.zeros((4, 1, 3), np.float16), ("b",), "data"), kept)
    before = kept.read_bytes()
    with monkeypatch.context() as broken, pytest.raises(TypeError):
        broken.setattr("bloodedge.compress.teaching.teacher_answers", None)
        teach(TeachingConfig(("teacher",), logits=str(kept)), colours, QUICK, force=True)
    assert kept.read_bytes() == before
    teach(TeachingConfig(("teacher",), logits=str(kept)), colours, QUICK, force=True)
    assert read_bank(kept, colours).teachers == ("teacher",)
    with pytest.raises(DataError, match="holds no teacher logits"):
        teach(TeachingConfig(("teacher",), logits=str(cells)), colours, QUICK, force=True)
    assert cells.exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_weighs_as_its_method_says_unless_told_otherwise(method: str):
    assert KdConfig(method=method) == KdConfig(alpha=METHODS[method], method=method)
    # What a manifest records.
    assert asdict(KdConfig(method=method))["alpha"] == METHODS[method]
    assert KdConfig() == loss_config("kd", 4.0, None)
