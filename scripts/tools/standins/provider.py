"""What provider plugins have in common: the gRPC service, secrets and unknowns, logging,
cancelling, and ending with the CLI.

A provider is a subclass of `Provider`; its program ends with `serve(MyProvider())`. Its methods
take one `Request` and work on plain Python values with the markers `Secret` and `UNKNOWN` (see
`properties`, whose names are re-exported here):

    class Files(Provider):
        name, version = "files", "1.0.0"
        types = frozenset({"files:index:File"})

        def create(self, request: Request) -> Created:
            if request.preview:
                return Created("", request.inputs)              # unknown outputs:
                {**request.inputs, "size": UNKNOWN}
            request.status("writing")                           # shown beside the resource while
            the CLI works ...                                                 # `raise
            ProviderError("...")` ends the operation: nothing is saved return Created("the-id",
            {**request.inputs, "size": 1})

- `check` (default: accept) answers `Checked(inputs, failures)`; `inputs` may have defaults filled
  in.
- `diff` (default: compare `old_inputs` with `inputs`) answers a `Difference`.
- `create` answers `Created(id, state)`, `update` the new state, `read` a `Found(id, state, inputs)`
  or None when the object is gone,
  `delete` nothing.
- `InitFailed` means that the object exists but does not work: it is saved, the operation fails, and
  the next `up` updates it.
- The state of a resource must keep the secrets of its inputs secret. Return the inputs as they
  came, and pass what a server answers through `secret_like(answer, request.inputs)`.
- Waiting: `request.wait(seconds)` raises `Cancelled` when the user interrupts. Anything else is
  aborted by `with request.on_cancel(process.kill): ...`.
- In `configure` and `check_config` the values of provider settings that are no strings arrive as
  JSON text, as the SDKs send them.

Tests host a provider in their own process with `with hosting(MyProvider()) as port:` and
`PULUMI_DEBUG_PROVIDERS=name:port`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from . import plugin
from .operations import Cancelled, Checked, Created, Difference, Failure, Found, InitFailed, ProviderError, Refused, Request
from .plugin import Engine
from .properties import (
    UNKNOWN,
    Properties,
    Secret,
    differences,
    from_struct,
    has_secret,
    has_unknown,
    plain,
    secret,
    secret_like,
    to_struct,
)
from .protocol import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

__all__ = [
    "UNKNOWN",
    "Cancelled",
    "Checked",
    "Created",
    "Difference",
    "Failure",
    "Found",
    "InitFailed",
    "Properties",
    "Provider",
    "ProviderError",
    "Refused",
    "Request",
    "Secret",
    "differences",
    "has_secret",
    "has_unknown",
    "hosting",
    "plain",
    "secret",
    "secret_like",
    "serve",
]

Answer = TypeVar("Answer")


class Provider:
    """What a provider overrides. Methods run in parallel, each in a thread of its own."""

    name: str = ""
    version: str = ""
    types: frozenset[str] = frozenset()
    """The resource types implemented; see `supports`."""

    def supports(self, type: str) -> bool:
        """Return whether resources of this type are implemented; all others are refused by name,
        already in a preview.
        """
        return type in self.types

    def check_config(self, request: Request) -> Checked:
        """Judge the provider's own settings (`request.inputs`). Secrets arrive unmarked; the
        engine marks them again.
        """
        return Checked(request.inputs)

    def diff_config(self, request: Request) -> Difference:
        """Compare the provider's settings. What is in `replaces` replaces every resource of this
        provider.
        """
        return Difference(differences(request.old_inputs, request.inputs))

    def configure(self, settings: Properties) -> None:
        """Take the settings. Not called while they are unknown; then nothing else is called
        either.
        """

    def check(self, request: Request) -> Checked:
        return Checked(request.inputs)

    def diff(self, request: Request) -> Difference:
        return Difference(differences(request.old_inputs, request.inputs))

    def create(self, request: Request) -> Created:
        raise NotImplementedError

    def update(self, request: Request) -> Properties:
        raise NotImplementedError

    def read(self, request: Request) -> Found | None:
        return Found(request.id, request.state, request.inputs)

    def delete(self, request: Request) -> None:
        """Nothing to do by default."""

    def invoke(self, token: str, arguments: Properties) -> Properties:
        raise self.refusal(token)

    def refusal(self, what: str) -> Refused:
        """Return the error for something that is not implemented."""
        return Refused(
            f"the lab's stand-in for the {self.name} provider does not implement {what}; install the official plugin: "
            f"pulumi plugin install resource {self.name} v{self.version}"
        )


class _Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Translates between the protocol and a `Provider`."""

    def __init__(self, provider: Provider, engine_address: str = "") -> None:
        self._provider = provider
        self._engine = Engine(engine_address) if engine_address else None
        self._requests: dict[int, Request] = {}
        self._lock = threading.Lock()

    def register(self, server: grpc.Server) -> None:
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(self, server)

    # Life of the plugin

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._attach(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True)

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._attach(request.address)
        return empty_pb2.Empty()

    def _attach(self, address: str) -> None:
        old, self._engine = self._engine, Engine(address)
        if old:
            old.close()

    def close(self) -> None:
        """End the connection to the engine."""
        if self._engine:
            self._engine.close()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=self._provider.version)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cancel()
        return empty_pb2.Empty()

    def cancel(self) -> None:
        """End every operation under way."""
        with self._lock:
            requests = list(self._requests.values())
        # Each in a thread of its own: ending a child process may take a while.
        threads = [threading.Thread(target=each.cancel, daemon=True) for each in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._check(self._provider.check_config, request, context)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._diff(self._provider.diff_config, request, context)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        settings = from_struct(request.args)
        self._run(context, _call(request), lambda _: self._provider.configure(settings))
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True, acceptResources=True)

    # Resources

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self._provider.supports(request.type):
            _fail(context, self._provider.refusal(request.type))
        return self._check(self._provider.check, request, context)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._diff(self._provider.diff, request, context)

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        call = _call(request, inputs=from_struct(request.properties))
        created = self._run(context, call, self._provider.create)
        return provider_pb2.CreateResponse(id=created.id, properties=to_struct(created.state))

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        call = _call(request, inputs=from_struct(request.news), old_inputs=from_struct(request.old_inputs), state=from_struct(request.olds))
        return provider_pb2.UpdateResponse(properties=to_struct(self._run(context, call, self._provider.update)))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self._provider.supports(request.type):
            _fail(context, self._provider.refusal(request.type))
        call = _call(request, inputs=from_struct(request.inputs), state=from_struct(request.properties))
        existing = self._run(context, call, self._provider.read)
        if existing is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=existing.id, properties=to_struct(existing.state), inputs=to_struct(existing.inputs))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        call = _call(request, inputs=from_struct(request.old_inputs), state=from_struct(request.properties))
        self._run(context, call, self._provider.delete)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        arguments = from_struct(request.args)
        result = self._run(context, Request("", request.tok, ""), lambda _: self._provider.invoke(request.tok, arguments))
        return provider_pb2.InvokeResponse(**{"return": to_struct(result)})

    # Refused

    def Construct(self, request: Any, context: grpc.ServicerContext) -> Any:
        _fail(context, self._provider.refusal(request.type))

    def Call(self, request: Any, context: grpc.ServicerContext) -> Any:
        _fail(context, self._provider.refusal(request.tok))

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:
        _fail(context, self._provider.refusal("its schema"))

    def Parameterize(self, request: Any, context: grpc.ServicerContext) -> Any:
        _fail(context, self._provider.refusal("parameters"))

    # Helpers

    def _check(self, check: Callable[[Request], Checked], request: Any, context: grpc.ServicerContext) -> Any:
        call = _call(request, inputs=from_struct(request.news), old_inputs=from_struct(request.olds))
        checked = self._run(context, call, check)
        failures = [provider_pb2.CheckFailure(property=f.property, reason=f.reason) for f in checked.failures]
        return provider_pb2.CheckResponse(inputs=to_struct(checked.inputs), failures=failures)

    def _diff(self, diff: Callable[[Request], Difference], request: Any, context: grpc.ServicerContext) -> Any:
        call = _call(request, inputs=from_struct(request.news), old_inputs=from_struct(request.old_inputs), state=from_struct(request.olds))
        return _difference(self._run(context, call, diff))

    def _run(self, context: grpc.ServicerContext, call: Request, method: Callable[[Request], Answer]) -> Answer:
        call.engine = self._engine
        with self._lock:
            self._requests[id(call)] = call
        # The callback also runs when the call has ended; it matters when the CLI was killed and its
        # connection broke.
        if not context.add_callback(call.cancel):
            call.cancel()
        try:
            return method(call)
        except Exception as error:
            _fail(context, error)
        finally:
            with self._lock:
                del self._requests[id(call)]


def _call(request: Any, **properties: Any) -> Request:
    """The `Request` for a message: what this kind of message has of the common fields, and its
    decoded property maps.
    """
    return Request(
        request.urn,
        request.type,
        request.name,
        id=getattr(request, "id", ""),
        preview=getattr(request, "preview", False),
        timeout=getattr(request, "timeout", 0),
        ignore_changes=list(getattr(request, "ignoreChanges", [])),
        random_seed=getattr(request, "randomSeed", b""),
        **properties,
    )


def _difference(difference: Difference) -> Any:
    kinds = provider_pb2.PropertyDiff.Kind
    detailed = {
        path: provider_pb2.PropertyDiff(kind=kinds.Value(f"{kind.upper()}{'_REPLACE' * (path in difference.replaces)}"), inputDiff=True)
        for path, kind in difference.changes.items()
    }
    changed = provider_pb2.DiffResponse.DIFF_SOME if detailed else provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(
        changes=changed,
        detailedDiff=detailed,
        hasDetailedDiff=True,
        diffs=list(detailed),
        replaces=[path for path in detailed if path in difference.replaces],
        deleteBeforeReplace=difference.delete_before_replace,
        stables=difference.stables,
    )


def _fail(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End a call with an error. A defect of the stand-in is reported with its place, everything
    else with its message alone.
    """
    if isinstance(error, InitFailed):
        detail = provider_pb2.ErrorResourceInitFailed(
            id=error.id, properties=to_struct(error.state), reasons=error.reasons, inputs=to_struct(error.inputs or {})
        )
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    if isinstance(error, ProviderError):
        message = str(error)
    else:
        frame = error.__traceback__
        while frame and frame.tb_next:
            frame = frame.tb_next
        place = f"{os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}" if frame else "?"
        message = f"defect in the stand-in at {place}: {type(error).__name__}: {error}"
    context.abort(grpc.StatusCode.UNKNOWN, message)
    raise AssertionError("abort raises")


@contextmanager
def hosting(provider: Provider) -> Iterator[int]:
    """Serve `provider` in this process; gives the port for `PULUMI_DEBUG_PROVIDERS`."""
    servicer = _Servicer(provider)
    server, port = plugin.listen(servicer.register)
    try:
        yield port
    finally:
        servicer.cancel()
        server.stop(0).wait()
        servicer.close()


def serve(provider: Provider) -> None:
    """Be the plugin process of `provider`; does not return."""
    servicer = _Servicer(provider, plugin.engine_address())
    plugin.run(servicer.register, servicer.cancel)
