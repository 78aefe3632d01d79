"""What the loop works with: everything of one slice that is made ready before its first step."""

from mdm.config.recipe import StageRecipe
from mdm.diffusion.schedule import levels
from mdm.files.artifact import read_recipe
from mdm.train.bottlenecks import Bottlenecks
from mdm.train.checkpoint import Autosaves, Checkpoint
from mdm.train.example import decoding_threads, training_examples
from mdm.train.guards import Finite
from mdm.train.loggers import open_loggers
from mdm.train.machine import machine, trained_on
from mdm.train.previews import open_previews
from mdm.train.ranks import Ranks
from mdm.train.snapshots import Snapshots
from mdm.train.start import SliceOrder, identity, slice_end, start
from mdm.train.validation import open_validation


class Slice:
    """One slice of one stage, in one of the processes that train it."""

    def __init__(self, order: SliceOrder, ranks: Ranks) -> None:
        recipe = read_recipe(order.recipe_path, StageRecipe)
        self.out, self.ranks, self.accumulate = order.out, ranks, order.execution.accumulate
        self.config, self.diffusion = recipe.train, recipe.diffusion
        self.config.require_parts(ranks.world * self.accumulate, self.diffusion)
        self.end, self.total = slice_end(recipe, order.out), recipe.num_images
        self.autosaves = Autosaves(order.folder, order.autosave_seconds, writes=ranks.first)

        # The newest save of this slice, the slice before, the parent stage's weights, or fresh ones.
        self.state, self.progress = start(order, recipe, self.autosaves, ranks)
        self.state.machines = trained_on(self.state.machines, self.state.images, machine(ranks))
        self._belongs_to = identity(order.recipe_path, recipe)
        order.execution.apply(self.state.model, ranks.device)
        self.state.share(ranks)

        self.gammas = levels(self.diffusion, recipe.sizes).to(ranks.device)
        self.examples = training_examples(order.recipe_path, recipe, ranks)
        self.finite = Finite(self.config, recipe.sizes, self.autosaves, self.state)
        self.pace = Bottlenecks(ranks, decoding_threads(), self.progress.waits)
        self.validation = open_validation(order.recipe_path, recipe, self.gammas) if ranks.first else None
        loggers = open_loggers(order.folder, recipe, self.state.images) if ranks.first else []
        self.progress.report_to(loggers)
        every = order.preview_images * ranks.first
        self.previews = open_previews(order.recipe_path, recipe, every, self.gammas, loggers)
        note = {**self._belongs_to, "weights": "ema", "model": recipe.plain()["model"]}
        self.snapshots = Snapshots(order.out.parent, order.snapshots, note, writes=ranks.first)

    def checkpoint(self) -> Checkpoint:
        """All that a restart needs, as it is now."""
        tensors = {**self.state.tensors(), **self.progress.tensors()}
        return tensors, {**self._belongs_to, **self.state.metadata()}
