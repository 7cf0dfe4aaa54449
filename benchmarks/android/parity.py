"""The device's answers to the test images beside this machine's, through benchmark_model's files.

One inference a process: `--input_layer_value_files` takes one image, `--output_filepath` gives
the raw output tensor.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.android.adb import Adb
from bloodedge.benchmarks.elsewhere import Material, score
from bloodedge.deploy.interpreter import Classifier
from bloodedge.errors import DataError

_NAME = re.compile(r"[\w./:-]{1,200}")
# Images in one command: one that hangs is noticed, and a cable that is pulled costs little.
_AT_ONCE = 20
_IMAGE_SECONDS = 30.0


class Parity:
    """Compares one device with this machine, model by model.

    Args:
        adb: the device.
        folder: on the device, where files may be written.
        material: whose images are classified.
    """

    def __init__(self, adb: Adb, folder: str, material: Material) -> None:
        self._adb = adb
        self._folder = folder
        self._material = material
        self._there: set[str] = set()

    def compare(self, model: Path, command: str) -> dict[str, Any]:
        """Return accuracy on the device, and how its answers differ from this machine's.

        Args:
            model: the file here.
            command: what runs benchmark_model on it there, without input and output.

        Raises:
            LostDeviceError: the device is gone.
            ValueError: this build cannot read inputs or write outputs, or what came back is no
                output of the model.
        """
        classifier = Classifier(model)
        images = self._material.images
        try:
            inputs = self._push_inputs(classifier)
        except DataError as error:
            raise ValueError(str(error)) from error
        name, side = classifier.input_name, classifier.input_size
        if not _NAME.fullmatch(name):
            raise ValueError("the model's input has a name that no command line takes")
        shape = f"{classifier.batch},{side},{side},3"
        # Between name and file stands one colon; those inside the name are doubled.
        escaped = name.replace(":", "::")
        loop = (
            f"{command} --num_runs=1 --min_secs=0 --warmup_runs=1 --warmup_min_secs=0 "
            f"--input_layer={name} --input_layer_shape={shape} "
            f"--input_layer_value_files={escaped}:{inputs}/$i "
            f"--output_filepath={self._folder}/out/$i"
        )
        self._adb.shell(f"rm -rf {self._folder}/out && mkdir -p {self._folder}/out")
        for start in range(0, len(images), _AT_ONCE):
            numbers = " ".join(map(str, range(start, min(start + _AT_ONCE, len(images)))))
            body = f"for i in {numbers}; do {loop} >/dev/null 2>&1; done"
            self._adb.shell(body, timeout=_IMAGE_SECONDS * _AT_ONCE)
            if start == 0 and "0" not in self._adb.shell(f"ls {self._folder}/out").out.split():
                raise ValueError("this build of benchmark_model writes no outputs")
        return self._judge(classifier, classifier.decode(self._pull(classifier)))

    def _judge(self, classifier: Classifier, found: NDArray[np.float32]) -> dict[str, Any]:
        ours = classifier.predict(self._material.images)
        same = found.argmax(1) == ours.argmax(1)
        parity = {
            "images": len(found),
            "argmax_equal": int(same.sum()),
            "max_difference": float(np.abs(found - ours).max()),
        }
        return {**score(found.argmax(1), self._material.labels), "parity": parity}

    def _push_inputs(self, classifier: Classifier) -> str:
        """Write every image as the model takes it; return the folder on the device."""
        dtype = classifier.input_dtype.name
        target = f"{self._folder}/images-{dtype}-{classifier.batch}"
        # The step of an int8 input is the model's own.
        if target not in self._there or dtype == "int8":
            encoded = classifier.encode(self._material.images)
            with tempfile.TemporaryDirectory(prefix="bloodedge-adb-") as temporary:
                folder = Path(temporary) / Path(target).name
                folder.mkdir()
                for index, image in enumerate(encoded):
                    (folder / str(index)).write_bytes(image.tobytes() * classifier.batch)
                # An existing target would get the folder inside it.
                self._adb.shell(f"rm -rf {target}")
                self._adb.push(folder, target)
            self._there.add(target)
        return target

    def _pull(self, classifier: Classifier) -> NDArray[Any]:
        dtype, classes = classifier.output_dtype, classifier.classes
        expected = classes * classifier.batch * dtype.itemsize
        raw = np.empty((len(self._material.images), classes), dtype)
        with tempfile.TemporaryDirectory(prefix="bloodedge-adb-") as temporary:
            folder = Path(temporary) / "out"
            try:
                self._adb.pull(f"{self._folder}/out", folder)
            except DataError as error:
                raise ValueError(str(error)) from error
            for index in range(len(raw)):
                path = folder / str(index)
                if path.is_symlink() or not path.is_file() or path.stat().st_size != expected:
                    raise ValueError(f"the device gave no output of {expected} bytes for an image")
                raw[index] = np.frombuffer(path.read_bytes(), dtype)[:classes]
        if raw.dtype == np.float32 and not np.isfinite(raw).all():
            raise ValueError("the device gave outputs that are not finite")
        return raw
