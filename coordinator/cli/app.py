"""The command line: every command with its options and its help."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.configuration import Config, Overrides, load
from coordinator.cli.dead_letters import dead_letters_app
from coordinator.cli.keys import keys_app
from coordinator.cli.output import show_json, show_line, show_record, show_rows
from coordinator.cli.units import units_app

app = typer.Typer(
    help="Applies units of work over PostgreSQL and MongoDB, submitted by Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
devstack_app = typer.Typer(
    help="PostgreSQL, MongoDB and Kafka as local processes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(units_app, name="units")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(keys_app, name="keys")
app.add_typer(devstack_app, name="devstack")


class MongodbDriver(StrEnum):
    """The drivers that a store may be given."""

    MOTOR = "motor"
    PYMONGO = "pymongo"


DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Where the servers keep their data and logs."),
]


@app.command()
def run(config: Config = None, set_: Overrides = None) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    from coordinator.daemon.signals import leave_on_early_signal, run_and_leave

    leave_on_early_signal()
    settings = load(config, set_)
    from coordinator import logs

    logs.configure(settings.log.format, settings.log.level, settings.redact)
    from coordinator.bootstrap import run_daemon

    run_and_leave(lambda: run_daemon(settings))


@app.command()
def check(config: Config = None, set_: Overrides = None) -> None:
    """Check configuration, mappings, connections, rights and topics; change nothing."""
    from coordinator.bootstrap import check as check_all

    report = asyncio.run(check_all(load(config, set_)))
    rows = [
        {"subject": one.subject, "verdict": one.verdict.value, "detail": one.detail}
        for one in report.findings
    ]
    show_rows(rows, ("verdict", "subject", "detail"), empty="There was nothing to check.")
    raise typer.Exit(report.exit_code)


@app.command()
def verify(
    *,
    outbox_age: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="How long a message may wait for Kafka."),
    ] = 300.0,
    looks: Annotated[
        int, typer.Option(min=1, max=20, help="How often what looks wrong is looked at.")
    ] = 3,
    pause: Annotated[
        float, typer.Option(min=0, max=600, metavar="SECONDS", help="The time between two looks.")
    ] = 2.0,
    page: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="ROWS", help="How much is read at a time.")
    ] = 500,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Prove that journal and stores agree; change nothing; exit code 1 when they do not."""
    from coordinator.bootstrap import verify as verify_all
    from coordinator.cli.verify import show

    looking = verify_all(
        load(config, set_),
        outbox_age_seconds=outbox_age,
        looks=looks,
        pause_seconds=pause,
        page_rows=page,
    )
    raise typer.Exit(show(asyncio.run(looking)))


@app.command()
def doctor(
    problems: Annotated[bool, typer.Option("--problems", help="Only what is not well.")] = False,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Examine servers, rights, topics and their settings; exit code 1 when something fails."""
    from coordinator.bootstrap import doctor as examine
    from coordinator.domain.diagnosis import Health

    found = asyncio.run(examine(load(config, set_)))
    rows = [
        {
            "health": each.health.value,
            "subject": each.subject,
            "detail": each.detail,
            "remedy": each.remedy,
        }
        for each in found
        if not (problems and each.health is Health.OK)
    ]
    columns = ("health", "subject", "detail", "remedy")
    show_rows(rows, columns, empty="All is well.")
    raise typer.Exit(1 if any(each.health is Health.FAIL for each in found) else 0)


@app.command()
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|UNIT_ID", help="A file of units (- is stdin), or a unit of the journal."
        ),
    ],
    *,
    topic: Annotated[
        str | None,
        typer.Option(help="The topic of units, where the configuration has several intakes."),
    ] = None,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Tell what a file of units would do, or why a unit stands where it does; change nothing."""
    from coordinator.bootstrap import explain_submissions, situation
    from coordinator.cli.explain import show_explained, show_situation
    from coordinator.cli.submissions import FileUnreadable, read_file
    from coordinator.domain.submission import is_unit_id

    if what == "-" or Path(what).exists():
        units = read_file(what)
        explaining = explain_submissions(load(config, set_), units, topic)
        raise typer.Exit(show_explained(asyncio.run(explaining)))
    found = asyncio.run(situation(load(config, set_), what)) if is_unit_id(what) else None
    if found is None:
        raise FileUnreadable(f"{what}: there is no file and no unit of this name.")
    show_situation(found)


@app.command()
def migrate(config: Config = None, set_: Overrides = None) -> None:
    """Make the tables of the journal and of the stores' bookkeeping, or bring them up to date."""
    from coordinator.bootstrap import migrate as migrate_journal

    asyncio.run(migrate_journal(load(config, set_)))
    if sys.stdout.isatty():
        show_line("The journal is up to date.")
    else:
        show_json({"journal": "up to date"})


@app.command()
def roles(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="A store's name, or journal for one of its own.")
    ],
    prefix: Annotated[
        str, typer.Option(metavar="NAME", help="What the names of the roles begin with.")
    ] = "coordinator",
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Show the script that makes the least roles for a store: SQL, or JavaScript for mongosh."""
    from coordinator.bootstrap.roles import script

    sys.stdout.write(script(load(config, set_), store, prefix))


@app.command()
def submit(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="One unit, an array of units or JSON lines; - is stdin."
        ),
    ],
    *,
    key: Annotated[
        str | None, typer.Option(help="The Kafka key: units with it keep order.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for all outcomes.")
    ] = 60.0,
    topic: Annotated[
        str | None,
        typer.Option(help="The topic of units, where the configuration has several intakes."),
    ] = None,
    sign_with: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sign with this private key (PEM).")
    ] = None,
    key_id: Annotated[
        str | None, typer.Option(help="The name by which the topic knows that key.")
    ] = None,
    audience: Annotated[
        str | None, typer.Option(help="Whom the signature is for [default: as configured].")
    ] = None,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Submit units, wait and show their outcomes; exit code 0 when all are committed."""
    from coordinator.cli.submissions import read_file
    from coordinator.cli.submit import Signing, submit_and_show

    if (sign_with is None) != (key_id is None):
        raise typer.BadParameter("give --sign-with and --key-id together")
    signing = None
    if sign_with is not None and key_id is not None:
        signing = Signing(sign_with, key_id, audience)
    settings = load(config, set_)
    units = read_file(file)
    sending = submit_and_show(settings, units, key, timeout, topic=topic, signing=signing)
    raise typer.Exit(asyncio.run(sending))


@devstack_app.command("up")
def devstack_up(
    data: DataFolder = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave them running.")] = False,
    config: Config = None,
) -> None:
    """Start the servers and show their addresses; Ctrl-C stops them."""
    from coordinator.devstack import commands

    raise typer.Exit(commands.up(data or commands.DEFAULT_DATA_FOLDER, detach))


@devstack_app.command("down")
def devstack_down(data: DataFolder = None, config: Config = None) -> None:
    """Stop the servers; their data stays."""
    from coordinator.devstack import commands

    raise typer.Exit(commands.down(data or commands.DEFAULT_DATA_FOLDER))


@devstack_app.command("status")
def devstack_status(data: DataFolder = None, config: Config = None) -> None:
    """Show the servers; exit code 0 when all run."""
    from coordinator.devstack import commands

    raise typer.Exit(commands.status(data or commands.DEFAULT_DATA_FOLDER))


@app.command()
def demo(config: Config = None) -> None:
    """Watch a few thousand units go through real servers, started for the occasion."""
    from coordinator.demo import main as run_demo

    raise typer.Exit(run_demo())


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round, to see that it runs.")
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many rounds; 5, with --quick 1.")
    ] = None,
    variants: Annotated[
        bool, typer.Option("--variants", help="The coordinator on less good days instead.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    driver: Annotated[
        MongodbDriver, typer.Option(help="The MongoDB driver of everybody who has a choice.")
    ] = MongodbDriver.MOTOR,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the figures go; an SVG beside.")
    ] = None,
    config: Config = None,
) -> None:
    """Measure transfers beside the unsafe dual write, a straight line and DBOS."""
    from coordinator.cli.bench import bench as run_bench

    raise typer.Exit(
        run_bench(
            repeats=repeats,
            quick=quick,
            with_variants=variants,
            only=tuple(only or ()),
            driver=driver.value,
            json_file=json,
        )
    )


@app.command()
def health(
    live: Annotated[bool, typer.Option("--live", help="Ask only whether it is alive.")] = False,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Ask the running daemon whether it is ready; exit code 0 when it is."""
    from coordinator.cli.health import ask

    answer = ask(load(config, set_).http.listen, "/livez" if live else "/readyz")
    show_record(answer.body)
    raise typer.Exit(0 if answer.is_good else 1)


@app.command()
def version(config: Config = None) -> None:
    """Show the version."""
    from coordinator import __version__

    show_line(__version__)
