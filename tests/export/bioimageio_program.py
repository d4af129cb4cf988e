"""PACKAGE IMAGES.npz OUT.npz: test a package as `bioimageio test` does, and segment images with each of its weights.

It runs in an environment with bioimageio.core, PyTorch and ONNX Runtime, without crispseg.
"""

import sys

import numpy as np
from bioimageio.core import create_prediction_pipeline, load_model_description, predict, test_model

if __name__ == "__main__":
    sys.modules["crispseg"] = None  # type: ignore[assignment]
    package, images, out = sys.argv[1:]
    model, labels = load_model_description(package), {}
    for weights in ("onnx", "torchscript"):
        pipeline = create_prediction_pipeline(model, weights_format=weights)
        for name, image in np.load(images).items():  # (C, H, W)
            probabilities = predict(model=pipeline, inputs={"images": image[None]}).members["probabilities"]
            labels[f"{weights}/{name}"] = probabilities.data.to_numpy()[0].argmax(0)
    np.savez(out, **labels)
    summary = test_model(package)
    summary.display()
    sys.exit(summary.status != "passed")
