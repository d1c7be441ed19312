"""Dependency injection: modules, providers, scopes. Knows nothing of queues or servers.

`build_graph(AppModule)` reads and checks everything, `ApplicationContext(graph)` brings it to life. See `graph.py` and `context.py` for
what layers above can hook into.
"""

from toril.di.bindings import Binding, Edge, EdgeKind
from toril.di.context import ApplicationContext
from toril.di.discovery import DiscoveryService, Marked, MarkedMethod, Provided, mark
from toril.di.errors import (
    AmbiguousToken,
    AwaitableValue,
    CaptiveDependency,
    CircularAlias,
    CircularDependency,
    ConflictingModules,
    DIError,
    GraphErrors,
    InvalidModule,
    InvalidProvider,
    NotFound,
    NotReady,
    OutOfScope,
    UnknownExport,
    UnknownOverride,
    UnreadableAnnotation,
    UnresolvedDependency,
    WrongScope,
)
from toril.di.graph import Check, Graph, build_graph
from toril.di.interop import ContainerModule
from toril.di.job_scope import JobScope, current_job, current_scope
from toril.di.lifecycle import (
    BeforeApplicationShutdown,
    ContextState,
    Hook,
    OnApplicationBootstrap,
    OnApplicationShutdown,
    OnModuleDestroy,
    OnModuleInit,
)
from toril.di.module import DynamicModule, global_module, is_module, module
from toril.di.module_ref import ModuleRef
from toril.di.option_providers import OptionsFactory, OptionWays, option_providers
from toril.di.overrides import Overrides
from toril.di.places import Place, attach, caller_namespace, caller_place, own_metadata, place_of
from toril.di.plan import JobPlan, PlanKind
from toril.di.providers import Provider, Scope, injectable, provide
from toril.di.scanner import Node
from toril.di.tokens import INQUIRER, JOB_REF, REQUEST, ForwardRef, Inject, JobRef, Lazy, ManyToken, Token, forward_ref, token_name

__all__ = [
    "INQUIRER",
    "JOB_REF",
    "REQUEST",
    "AmbiguousToken",
    "ApplicationContext",
    "AwaitableValue",
    "BeforeApplicationShutdown",
    "Binding",
    "CaptiveDependency",
    "Check",
    "CircularAlias",
    "CircularDependency",
    "ConflictingModules",
    "ContainerModule",
    "ContextState",
    "DIError",
    "DiscoveryService",
    "DynamicModule",
    "Edge",
    "EdgeKind",
    "ForwardRef",
    "Graph",
    "GraphErrors",
    "Hook",
    "Inject",
    "InvalidModule",
    "InvalidProvider",
    "JobPlan",
    "JobRef",
    "JobScope",
    "Lazy",
    "ManyToken",
    "Marked",
    "MarkedMethod",
    "ModuleRef",
    "Node",
    "NotFound",
    "NotReady",
    "OnApplicationBootstrap",
    "OnApplicationShutdown",
    "OnModuleDestroy",
    "OnModuleInit",
    "OptionWays",
    "OptionsFactory",
    "OutOfScope",
    "Overrides",
    "Place",
    "PlanKind",
    "Provided",
    "Provider",
    "Scope",
    "Token",
    "UnknownExport",
    "UnknownOverride",
    "UnreadableAnnotation",
    "UnresolvedDependency",
    "WrongScope",
    "attach",
    "build_graph",
    "caller_namespace",
    "caller_place",
    "current_job",
    "current_scope",
    "forward_ref",
    "global_module",
    "injectable",
    "is_module",
    "mark",
    "module",
    "option_providers",
    "own_metadata",
    "place_of",
    "provide",
    "token_name",
]
