"""What a series that is read from the disk as it is needed does not carry, and what to do then."""

from __future__ import annotations

from gridcast.config.data import DataConfig
from gridcast.config.frames import FramesConfig, TargetConfig
from gridcast.config.models import ModelConfig

# References that are fitted for each cell by itself, and so some rows at a time.
BASES = ("climatology", "persistence", "damped_persistence")
_TRANSFORMS = ("none", "cube_root")


def obstacle(
    data: DataConfig,
    frames: FramesConfig,
    target: TargetConfig,
    model: ModelConfig,
    loss: str | None,
) -> str | None:
    """The first setting that needs the whole series in memory, and the nearest fix; or None."""
    needs = [
        (data.mean_over is not None, "data.mean_over", "no data.mean_over: a box is a small file"),
        (bool(data.more), "data.more", "no data.more"),
        (
            data.transform not in _TRANSFORMS,
            f"data.transform: {data.transform}",
            f"data.transform: {' or '.join(_TRANSFORMS)}",
        ),
        (target.mean_over is not None, "target.mean_over", "no target.mean_over"),
        (target.classes is not None, "target.classes", "no target.classes"),
        (frames.trailing is not None, "frames.trailing", "no frames.trailing"),
        (
            frames.missing != "error",
            f"frames.missing: {frames.missing}",
            "frames.missing: error, and a series without holes",
        ),
        (
            loss in ("bernoulli_gamma", "crps", "mse_crps"),
            f"train.loss: {loss}",
            "train.loss: mse, mae, huber or balanced_mse",
        ),
        (
            model.base not in BASES,
            f"model.base: {model.base}",
            f"model.base: {', '.join(BASES[:-1])} or {BASES[-1]}",
        ),
    ]
    for needed, what, fix in needs:
        if needed:
            return (
                f"{what} needs the whole series in memory\n  fix: frames.storage: memory, or {fix}"
            )
    return None
