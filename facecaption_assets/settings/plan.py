"""The ``FACECAPTION_PLAN_*`` settings: prices, machines and time that ``facecaption plan`` reckons with."""

from __future__ import annotations

from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings

_OWN: Final = "None: plan.toml's"


class PlanSettings(BaseSettings):
    """Each stands in for the rate of ``plan.toml`` with its name; a file given by ``--prices`` wins over both."""

    plan_price_cpu: float | None = Field(None, ge=0, description=f"of a machine hour of the class cpu; {_OWN}")
    plan_price_download: float | None = Field(None, ge=0, description=f"of a machine hour of download; {_OWN}")
    plan_price_a100: float | None = Field(None, ge=0, description=f"of a machine hour with one A100; {_OWN}")
    plan_price_a100x8: float | None = Field(None, ge=0, description=f"of a machine hour with eight A100s; {_OWN}")
    plan_price_storage: float | None = Field(None, ge=0, description=f"of a GB and month; {_OWN}")
    plan_price_put: float | None = Field(None, ge=0, description=f"of a thousand PUT, POST and LIST requests; {_OWN}")
    plan_price_get: float | None = Field(None, ge=0, description=f"of a thousand GET and HEAD requests; {_OWN}")
    plan_machines_cpu: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    plan_machines_download: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    plan_machines_a100: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    plan_machines_a100x8: int | None = Field(None, ge=1, description=f"at once; {_OWN}")
    plan_storage_months: float | None = Field(None, ge=0, description=f"that everything is kept; {_OWN}")
    plan_shard_size: int | None = Field(None, ge=1, description=f"URLs in a shard of the planned data set; {_OWN}")
