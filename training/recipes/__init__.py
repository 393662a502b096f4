"""Every experiment by name. A recipe is a value; the command line overrides its fields."""

from training.recipe import NamedRecipe
from training.recipes.conditioned import CONDITIONED_RECIPES
from training.recipes.demo import DEMO_RECIPES
from training.recipes.demo_systems import DEMO_SYSTEM_RECIPES
from training.recipes.mean_teacher import MEAN_TEACHER_RECIPES, RECOMMENDED
from training.recipes.paper import PAPER_RECIPES
from training.recipes.paper_rivals import PAPER_RIVAL_RECIPES

__all__ = ["RECIPES", "RECOMMENDED"]

RECIPES: dict[str, NamedRecipe] = {
    **DEMO_RECIPES,
    **DEMO_SYSTEM_RECIPES,
    **MEAN_TEACHER_RECIPES,
    **CONDITIONED_RECIPES,
    **PAPER_RECIPES,
    **PAPER_RIVAL_RECIPES,
}
