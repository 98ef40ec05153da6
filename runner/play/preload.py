"""Loads Ansible in the warm process.  Importing this module loads it, configured by the environment of that moment.

Ansible was written as a program that ends after one play.  At import it chooses the name of its temporary directory and
the number that makes its ids unique, and it takes its streams; two forks would share these, so `play` renews them.  The
details come from failures and from reading ansible-core 2.19 and ansible-runner 2.4; they are private to both packages.
"""

import ast
import atexit
import importlib
import itertools
import re
import secrets
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

from ansible._internal._templating._engine import TemplateEngine
from ansible.cli.playbook import PlaybookCLI
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.plugins import loader
from ansible.utils import vars as ids
from ansible.utils.context_objects import CLIArgs
from ansible.utils.display import Display, _synchronize_textiowrapper
from ansible.vars.clean import clean_facts
from ansible.vars.manager import VariableManager
from ansible.vars.plugins import _prime_vars_loader

from ansible import constants  # type: ignore[attr-defined] # mypy sees our own folder of that name
from runner.play import posix

# Modules that a play imports, but neither the command line nor a plugin.
MODULES = (
    "ansible._internal._errors._task_timeout",
    "ansible._internal._json._profiles._inventory_legacy",
    "ansible.cli.scripts",
    "ansible.executor.process.worker",
    "ansible.modules",
    "ansible.playbook.handler_task_include",
    "ansible.plugins.action.normal",
    "multiprocessing.popen_fork",
    "multiprocessing.resource_tracker",
    "multiprocessing.synchronize",
)


FINDER_WARNING = "AnsibleCollectionFinder has already been configured"
REHEARSALS = 12  # Python specializes a function after eight calls


def load(project: Path) -> None:
    """Load what every play of `project` needs, including plugin documentation, which defines the plugins' settings."""
    for name in MODULES:
        importlib.import_module(name)
    loader.init_plugin_loader()
    loader.PluginLoader._load_config_defs = _load_settings
    for plugins in (loader.connection_loader, loader.shell_loader, loader.become_loader):
        list(plugins.all(class_only=True))
    # ansible-runner's own callback plugin changes Ansible's output, and a play prints something before it loads it.
    for path in loader.callback_loader.all(path_only=True):
        if (name := Path(path).stem) != constants.DEFAULT_STDOUT_CALLBACK:
            loader.callback_loader.get(name, class_only=True)
        else:
            loader.callback_loader._load_config_defs(name, _documentation(path), path)
    for plugins in (loader.filter_loader, loader.test_loader):
        list(plugins.all())
    for name in constants.INVENTORY_ENABLED:
        loader.inventory_loader.get(name, class_only=True)
    loader.strategy_loader.get(constants.DEFAULT_STRATEGY, class_only=True)
    loader.cache_loader.get(constants.CACHE_PLUGIN, class_only=True)
    _prime_vars_loader()
    # A play also adds this directory, when it reads its playbook, and needs no action plugin before that.
    loader.action_loader.add_directory(str(project / "action_plugins"))
    for path in loader.action_loader.all(path_only=True):
        if Path(path).is_relative_to(project):
            loader.action_loader.get(Path(path).stem, class_only=True)
    # These exit functions are for this process only; otherwise they would run at the end of each fork.
    atexit._clear()
    shutil.rmtree(constants.DEFAULT_LOCAL_TMP)


_load_config_defs = loader.PluginLoader._load_config_defs


def _load_settings(self: loader.PluginLoader, name: str, module: ModuleType, path: str) -> None:
    """Do what Ansible's own method does, and also remember plugins without settings.

    Otherwise each play would read their documentation again.
    """
    _load_config_defs(self, name, module, path)
    kind = loader.get_plugin_class(self.class_name) if self.class_name else None
    if kind in constants.CONFIGURABLE_PLUGINS and not constants.config.has_configuration_definition(kind, name):
        constants.config.initialize_plugin_configuration_definitions(kind, name, {})


def _documentation(path: str) -> SimpleNamespace:
    """Return a plugin's DOCUMENTATION as a module would have it, without executing the plugin."""
    for statement in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="DOCUMENTATION")], value=ast.Constant(value=text)):
                return SimpleNamespace(DOCUMENTATION=text)
    return SimpleNamespace()


def rehearse(arguments: list[str], playbooks: list[Path]) -> None:
    """Do what a play does before its first task, often enough that Python has optimized it.

    A fork inherits what Python and Ansible cache: specialized bytecode, compiled patterns, class checks.  Only steps
    without other lasting effects are rehearsed: no callback, no task, no connection.
    """
    cli = PlaybookCLI(["ansible-playbook"])
    cli.init_parser()
    PlaybookCLI.init_parser = lambda self: setattr(self, "parser", cli.parser)  # the same for all plays
    re.compile(FINDER_WARNING, re.IGNORECASE)
    for _ in range(REHEARSALS):
        options = cli.parser.parse_args(arguments)
        CLIArgs.from_options(options)
        files = DataLoader()
        inventory = InventoryManager(files, sources=options.inventory)
        variables = VariableManager(files, inventory)
        plays = [play for path in playbooks for play in Playbook.load(str(path), variables, files).get_plays()]
        for play, host in itertools.product(plays, inventory.get_hosts()):
            for task in itertools.chain.from_iterable(block.block for block in play.compile()):
                templates = TemplateEngine(files, variables.get_vars(play, host, task))
                templates.template(task.action)
                task.copy().post_validate(templates)
        clean_facts({})


def play(arguments: list[str]) -> int:
    """Run `ansible-playbook` in a fork that has its own streams and environment, and return the exit status."""
    renew()
    try:
        PlaybookCLI.cli_executor(["ansible-playbook", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
    return 0


def renew() -> None:
    """Replace the state that this fork must not share with other forks."""
    for name in ("ANSIBLE_HOME", "DEFAULT_LOCAL_TMP"):
        setattr(constants, name, constants.config.get_config_value(name))
    # Otherwise all plays would have the same ids, by which ansible-runner finds its events.
    ids.random_int = f"{secrets.randbelow(2**32):08x}"
    ids.cur_id = 0
    display = Display()
    # Ansible prints each warning once; a play must print those again that were printed while loading.
    for printed in (display._warns, display._deprecations, display._errors):
        printed.clear()
    posix.open_streams("_replacing_warning_handler")
    for stream in (sys.stdout, sys.stderr):
        _synchronize_textiowrapper(stream, display._lock)
    warnings.filterwarnings("ignore", FINDER_WARNING)
