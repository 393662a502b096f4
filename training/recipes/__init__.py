"""Every experiment by name. A recipe is a value; the command line overrides its fields."""

from training.recipe import NamedRecipe
from training.recipes.demo import DEMO_RECIPES
from training.recipes.paper import PAPER_RECIPES

__all__ = ["RECIPES"]

RECIPES: dict[str, NamedRecipe] = {**DEMO_RECIPES, **PAPER_RECIPES}
