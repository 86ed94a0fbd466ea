"""A search of settings, as settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gridcast.config.bounds import Positive, Section


class TuneConfig(Section):
    """Settings chosen by forecasts of dates before those of the test, for `gridcast tune`."""

    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, description="values to try: {train.learning_rate: [1.0e-3, 3.0e-3]}"
    )
    trials: Positive = Field(
        default=20, description="of more combinations than these, so many are drawn at random"
    )
    folds: Positive = Field(default=3, description="blocks of years that each setting is judged on")
    how: Literal["blocks", "ahead"] = Field(
        default="blocks",
        description="blocks: each block of the training years, judged by models of the others; "
        "ahead: years up to the end of validation, judged by models of those before, where the "
        "climate drifts",
    )

    @model_validator(mode="after")
    def _enough_blocks(self) -> TuneConfig:
        if self.how == "blocks" and self.folds < 3:
            raise ValueError(
                f"how: blocks needs folds: 3 or more (one is judged, one validates, the others "
                f"train), found {self.folds}"
            )
        return self
