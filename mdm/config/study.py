"""Settings of a whole study: its data, its runs and ablations, and how they are measured."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from mdm.config.audit import AuditConfig, EmmConfig
from mdm.config.base import Name, Positive, Seed, Strict, Width
from mdm.config.latent import AutoencoderConfig
from mdm.config.protocol import ProtocolConfig
from mdm.config.run import RunConfig
from mdm.config.training import ResourceConfig


class DataConfig(Strict):
    """One data set: a source and its settings (each source checks its own)."""

    source: str = Field(description="scenes, cc12m, folder, ... (mdm/data/sources)")
    settings: dict[str, Any] = Field(default={}, description="settings of that source")
    shard_images: Positive = Field(default=1024, description="pictures in one shard (a tar file)")
    shards_per_job: Positive = Field(default=1, description="shards that one job makes; changes no result")


class EncoderConfig(Strict):
    """The frozen text encoder."""

    name: str = Field(default="tiny-t5", description="tiny-t5 (embedded, fixed seed) or t5 (a local folder)")
    settings: dict[str, Any] = Field(default={}, description="settings of that encoder")
    channels: Width = Field(description="width of its features")
    shards_per_job: Positive = Field(
        default=16, description="shards, of 65,536 captions each, that one job embeds; changes no result"
    )
    resources: ResourceConfig = Field(default=ResourceConfig(), description="of each job that embeds captions")


class AblationConfig(Strict):
    """One question. Its jobs, table row, figure, report section and target follow from this entry."""

    title: str = Field(description="heading of its section and page")
    question: str = Field(description="what it asks, in a sentence")
    group: Name = Field(description="section of the report: one of `groups`")
    against: str = Field(default="base", description="the run it is compared with")
    set: dict[str, Any] = Field(default={}, description="dotted.path: value, applied to the base recipe")
    cases: dict[Name, dict[str, Any]] = Field(
        default={},
        description="name: {dotted.path: value}; each is a run that changes several settings at once, and "
        "with `sweep` each case is tried with every value",
    )
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, description="dotted.path: list of values; several paths make a grid, every value with every other"
    )
    seeds: list[Seed] | None = Field(default=None, min_length=1, description="default: the study's")
    protocols: list[Name] | None = Field(default=None, description="default: all of the study (but that of `along`)")

    @field_validator("cases", mode="before")
    @classmethod
    def _named_by_numbers_too(cls, cases: Any) -> Any:
        """YAML reads the name 500 as a number."""
        return (
            {str(name) if isinstance(name, int) else name: case for name, case in cases.items()}
            if isinstance(cases, dict)
            else cases
        )

    @model_validator(mode="after")
    def _changes_something(self) -> AblationConfig:
        if not self.set and not self.sweep and not self.cases:
            raise ValueError(
                "an ablation needs `set`, `cases` or `sweep` (dotted.path: value); this one changes nothing"
            )
        return self

    @model_validator(mode="after")
    def _names_each_setting_once(self) -> AblationConfig:
        for case, changes in self.cases.items():
            if twice := sorted(self.sweep.keys() & changes.keys()):
                raise ValueError(f"case {case} and sweep both change {', '.join(twice)}; leave it out in one of them")
        return self


class InstrumentConfig(Strict):
    """A measuring network that is trained by a rule on real pictures."""

    data: Name = Field(description="real pictures to train it on")
    test: Name = Field(description="real pictures to test it on, which the report shows beside every number of it")
    settings: dict[str, Any] = Field(
        default={}, description="of the network and its training (mdm/config/instruments.py)"
    )


NUMBER_FROM = r"^(own|[a-z0-9][a-z0-9.]*(-[a-z0-9.]+)*/(clean|tf1))$"


class AlongConfig(Strict):
    """Measuring while training goes on: at the snapshots of stages, and at the end."""

    protocol: Name = Field(description="one of `protocols`; it measures nothing else unless it is the first of them")
    runs: list[str] | None = Field(
        default=None, min_length=1, description="runs or ablations (default: all with snapshots)"
    )


class ExcessConfig(Strict):
    """Measuring how far the answers of trained networks are from the best that their training pictures allow."""

    num_images: Annotated[int, Field(ge=4)] = Field(
        default=256, description="training pictures that are noised and asked about, spread over the whole set"
    )
    seed: Seed = Field(default=0, description="of the noises")
    resources: ResourceConfig = ResourceConfig()


class ClaimConfig(Strict):
    """A sentence of the paper as an expression over metrics."""

    statement: str = Field(description="the sentence, as the report shows it")
    source: str = Field(description="where the paper says it")
    expect: str = Field(description='e.g. fd_judge["base"] < fd_judge["no-progressive"]')
    protocol: Name | None = Field(default=None, description="default: the first")
    number_from: Annotated[str, Field(pattern=NUMBER_FROM)] | None = Field(
        default=None,
        description="of a claim that compares with a number: the protocol under which a paper measured it "
        "(standard/resize, as in coco-30k-one/tf1), or own for a bar that the study sets itself",
    )


class StudyConfig(Strict):
    """A whole study."""

    title: str = Field(description="heading of the report")
    question: str = Field(description="what the study asks, in a sentence")
    abstract: str = Field(default="", description="paragraph below the heading")
    data: dict[Name, DataConfig] = Field(min_length=1, description="data sets by name")
    text: dict[Name, EncoderConfig] = Field(default={}, description="frozen text encoders by name")
    judges: dict[Name, InstrumentConfig] = Field(default={}, description="networks that read pictures of scenes")
    clips: dict[Name, InstrumentConfig] = Field(default={}, description="small CLIPs, trained here")
    autoencoders: dict[Name, AutoencoderConfig] = Field(
        default={}, description="networks whose latent codes runs may train on, trained here or given by their weights"
    )
    base: RunConfig = Field(description="the recipe that ablations change")
    seeds: list[Seed] = Field(
        default=[0], min_length=1, description="a training of every run for each; verdicts need 3"
    )
    protocols: dict[Name, ProtocolConfig] = Field(default={}, description="ways of measuring; claims mean the first")
    along: AlongConfig | None = Field(default=None, description="curves over training")
    excess: ExcessConfig | None = Field(default=None, description="loss of every run beyond its known optimum")
    audit: AuditConfig | None = Field(default=None, description="copies of training pictures among drawn ones")
    emm: dict[Name, EmmConfig] = Field(
        default={}, description="numbers of training pictures up to which networks copy them, by interpolation"
    )
    theory: bool = Field(
        default=False, description="explain in the report, with pictures of the training set, why the optimum copies"
    )
    groups: dict[Name, str] = Field(default={}, description="sections of the report and their titles")
    ablations: dict[Name, AblationConfig] = Field(default={}, description="questions, each with its changes to base")
    claims: dict[Name, ClaimConfig] = Field(default={}, description="sentences that get a verdict")
    seconds_per_gigaflop: Annotated[float, Field(gt=0)] = Field(
        default=0.012, description="assumed cost where nothing was measured yet (mdm plan)"
    )
