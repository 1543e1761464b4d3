"""The ``FACECAPTION_PLAN_*`` settings: prices, machines and time that ``facecaption plan`` reckons with."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

_OWN: Final = "None: plan.toml's"


class PlanSettings(BaseModel):
    """What ``facecaption plan`` reckons with in the place of ``plan.toml``. The file of ``--prices`` wins over both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    price_cpu: float | None = Field(None, ge=0, description=f"of a machine hour of the class cpu; {_OWN}")
    price_download: float | None = Field(None, ge=0, description=f"of a machine hour of download; {_OWN}")
    price_a100: float | None = Field(None, ge=0, description=f"of a machine hour with one A100; {_OWN}")
    price_a100x8: float | None = Field(None, ge=0, description=f"of a machine hour with eight A100s; {_OWN}")
    price_storage: float | None = Field(None, ge=0, description=f"of a GB and month; {_OWN}")
    price_put: float | None = Field(None, ge=0, description=f"of a thousand PUT, POST and LIST requests; {_OWN}")
    price_get: float | None = Field(None, ge=0, description=f"of a thousand GET and HEAD requests; {_OWN}")
    machines_cpu: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    machines_download: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    machines_a100: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    machines_a100x8: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    storage_months: float | None = Field(None, ge=0, description=f"that everything is kept; {_OWN}")
    shard_size: int | None = Field(None, ge=1, description=f"URLs in a shard of the planned data set; {_OWN}")
