"""Command line: ``python -m bench``."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from bench import commands, compare_commands, generator_commands, key_commands, results_commands, tracing_commands
from bench.protocol import UserError


class OneLineErrors(TyperGroup):
    """Ends a user's mistake with one line on stderr and exit status 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (UserError, OSError) as error:
            line = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"error: {line}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("stopped; what was measured is kept, the same command goes on from there", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=OneLineErrors,
    help="Fingerprint generators, attack what they make, and score who made what.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(commands.run)
app.command("fit")(commands.fit)
app.command("compare")(compare_commands.compare_command)
app.command("generate")(tracing_commands.generate)
app.command("trace")(tracing_commands.trace)
app.command("attributability")(key_commands.attributability)
app.command("export")(generator_commands.export)
app.command("inspect")(generator_commands.inspect)
app.command("list")(commands.list_)
app.command("leaderboard")(results_commands.leaderboard)
app.command("report")(results_commands.report)
app.command("figures")(results_commands.figures)
app.command("join")(results_commands.join)
app.command("show")(results_commands.show)


if __name__ == "__main__":
    app(prog_name="python -m bench")
