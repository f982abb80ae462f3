"""Settings: read once at start-up from PENSTOCK_*, then passed down; never imported as a global."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from penstock.automations.pools import Pool

PathList = Annotated[tuple[str, ...], NoDecode]
DEFAULT_RULES = ("rules",)


class Settings(BaseSettings):
    """One process's settings; every field is the environment variable PENSTOCK_<FIELD>.

    The three URLs choose between the two ways to run. Left out, `penstock up` fills them in: a redis-server and a
    SQLite file of its own under `data_dir`.
    """

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore")

    bus_url: str = ""  # kafka://host:9092 | redis://host:6379/0 | unix:///path/to.sock
    database_url: str = ""  # postgresql+asyncpg://… | sqlite+aiosqlite:///path
    redis_url: str = ""  # limits, hints: redis://… | unix://…
    data_dir: Path = Path(".penstock")

    namespace: str = "default"
    rules: PathList = DEFAULT_RULES  # directories of rule files; a comma between several
    flows: PathList = ()  # modules or .py files that hold flows
    pool: str = "default"  # the work pool that this process's worker serves
    pools: tuple[Pool, ...] = ()  # what the pools are, as JSON; a pool that stands nowhere is inline
    queues: PathList = ()  # of the pool; none: all of them
    worker_name: str = ""  # what the worker is called; default: its host and process id

    host: str = "127.0.0.1"  # where HTTP listens: loopback unless told otherwise
    port: int = Field(default=4180, ge=0, le=65535)  # 0: any free one
    trusted_proxies: PathList = ()  # addresses or networks: their X-Forwarded-Proto and -For are believed
    api_url: str = ""  # where the CLI finds the API; default: http://host:port
    api_key: SecretStr = SecretStr("")  # the CLI's and the emitting client's key

    event_partitions: int = Field(default=6, ge=1, le=512)  # of penstock.events, at its making
    batch: int = Field(default=2_000, ge=1, le=50_000)  # records per partition and transaction
    ownership_lease: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))  # of a partition
    run_lease: timedelta = Field(default=timedelta(seconds=15), gt=timedelta(0))  # of a claimed run
    run_attempts: int = Field(default=5, ge=1)  # claims of one run before it is given up as crashed
    delivery_lease: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))  # of a claimed notification
    concurrency: int = Field(default=4, ge=1, le=256)  # runs of one worker at a time
    slack_base_url: str = ""  # instead of Slack's own, for channels that name none
    twilio_base_url: str = ""  # likewise
    outbox_ceiling: int = Field(default=50_000, ge=1)  # unsent rows above which an engine stops reading
    keep: timedelta = Field(default=timedelta(days=30), gt=timedelta(0))  # decisions, runs, logs: pruned when older
    log_level: str = "INFO"
    log_json: bool = False

    @field_validator("rules", "flows", "queues", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("pools")
    @classmethod
    def _each_once(cls, value: tuple[Pool, ...]) -> tuple[Pool, ...]:
        names = [pool.name for pool in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two pools are called {', '.join(twice)}; rename one")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            ip_network(each, strict=False)  # its ValueError says what is wrong
        return value

    @property
    def url(self) -> str:
        """The API's base URL, as a client on this machine would use it."""
        return self.api_url or f"http://{self.host}:{self.port}"
