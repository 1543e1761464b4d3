"""``FACECAPTION_STORE`` and ``FACECAPTION_S3_*``: where tables are, and how an S3 server is reached."""

from __future__ import annotations

import os
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

_CREDENTIALS: Final = {
    "s3_access_key_id": "AWS_ACCESS_KEY_ID",
    "s3_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "s3_session_token": "AWS_SESSION_TOKEN",
}


class StorageSettings(BaseModel):
    """Where everything that is made goes. Without keys here, AWS's own environment, profiles and roles apply."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = Field("", description="folder or s3://bucket/prefix of the tables; default HOME/store")
    s3_endpoint: str = Field("", description="address of an S3 server other than AWS")
    s3_region: str = Field("", description="region of the bucket; '': AWS's own environment")
    s3_access_key_id: SecretStr = Field(SecretStr(""), description="default: AWS's own environment, profile or role")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="goes with the access key")
    s3_session_token: SecretStr = Field(SecretStr(""), description="of temporary keys")
    s3_encryption: Literal["", "AES256", "aws:kms"] = Field(
        "", description="server-side encryption of what is written; '': the bucket's own"
    )
    s3_kms_key: str = Field("", description="key id or ARN for aws:kms; '': the account's default key")

    @field_validator("s3_endpoint")
    @classmethod
    def _without_credentials(cls, value: str) -> str:
        """An address is shown in logs and in the UI; keys have settings of their own."""
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("should be an address such as https://s3.example.org")
        if parts.username or parts.password:
            raise ValueError("holds credentials: use FACECAPTION_S3_ACCESS_KEY_ID and FACECAPTION_S3_SECRET_ACCESS_KEY")
        return value

    @property
    def options(self) -> dict[str, str]:
        """For ``Store``. Credentials are not among them: they would end in the records of trainings and in the UI."""
        given = {
            "aws_endpoint_url": self.s3_endpoint,
            "aws_region": self.s3_region,
            "aws_server_side_encryption": self.s3_encryption,
            "aws_sse_kms_key_id": self.s3_kms_key,
        }
        return {key: value for key, value in given.items() if value}

    def export_credentials(self) -> None:
        """Set AWS's own variables in this process, where boto3, Polars and child processes look for keys."""
        for name, variable in _CREDENTIALS.items():
            secret = getattr(self, name).get_secret_value()
            if secret:
                os.environ[variable] = secret
