"""Stored answers of a teacher: what a file of them is for, and how far it got."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from bloodedge.compress.bank import BankKey, teacher_answers
from bloodedge.data.dataset import Dataset

KEY = BankKey("teacher", "data", 4)
OTHER: dict[str, Any] = {
    "teacher": "another",
    "data": "other",
    "views": 8,
    "what": "features",
    "precision": "bfloat16",
}


@pytest.mark.parametrize("field", [field.name for field in fields(BankKey)])
def test_answers_of_anything_else_are_in_another_file(field: str):
    assert replace(KEY, **{field: OTHER[field]}).path != KEY.path


def test_an_interrupted_teacher_goes_on_with_the_view_it_was_at(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    class Teacher:
        output_shape = (None, 3)

    asked: list[str] = []

    def answer(model: Any, images: Any, *, label: str) -> Any:
        asked.append(label)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return np.full((len(images), 3), len(asked), np.float32)

    monkeypatch.setattr("bloodedge.compress.bank.predict_logits", answer)
    with pytest.raises(KeyboardInterrupt):
        teacher_answers(KEY, Teacher(), colours)
    found = teacher_answers(KEY, Teacher(), colours)
    assert [label[-3:] for label in asked] == ["1/4", "2/4", "3/4", "3/4", "4/4"]
    assert found[0, :, 0].tolist() == [1, 2, 4, 5]
