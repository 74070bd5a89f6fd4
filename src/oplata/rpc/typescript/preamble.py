"""The part of the emitted file that is the same for every router: what tRPC's clients look at, and no import of tRPC.

The types are structural, so that one file suits every version of the clients; names imported from @trpc/server would
silently turn into ``any`` with those before 11.4.
"""

from __future__ import annotations

from typing import Final, Literal

from oplata.rpc.errors import CODES

Client = Literal["v10", "v11"]

_CODES = "".join(f"\n  | '{code}'" for code in CODES)

_SHARED = f"""type ErrorCode ={_CODES};
interface ErrorShape {{
  message: string;
  code: number;
  data: {{ code: ErrorCode; httpStatus: number; path?: string; stack?: string }};
}}
"""

_V11 = """interface Types { ctx: object; meta: object; errorShape: ErrorShape; transformer: @transformer@ }
interface Procedure<Kind extends 'query' | 'mutation' | 'subscription', Input, Output> {
  _def: {
    $types: { input: Input; output: Output; errorShape: ErrorShape };
    procedure: true;
    type: Kind;
    meta: unknown;
    experimental_caller: boolean;
    inputs: any[];
  };
  meta: object;
  (opts: any): Promise<Output>;
}
type Query<Input, Output> = Procedure<'query', Input, Output>;
type Mutation<Input, Output> = Procedure<'mutation', Input, Output>;
type Subscription<Input, Item> = Procedure<'subscription', Input, AsyncIterable<Item, void, any>>;
interface Config {
  $types: Types;
  transformer: any;
  errorFormatter: any;
  allowOutsideOfServer: boolean;
  isServer: boolean;
  isDev: boolean;
  pathSeparator: any;
}
interface Router<Members> {
  _def: { _config: Config; router: true; procedure?: never; procedures: Members; record: Members; lazy: {} };
  createCaller: any;
}
"""

_V10 = """interface Transformer { @transformer@ }
interface Config {
  $types: { ctx: object; meta: object; errorShape: ErrorShape; transformer: Transformer };
  transformer: Transformer;
  errorShape: ErrorShape;
  errorFormatter: any;
  allowOutsideOfServer: boolean;
  isServer: boolean;
  isDev: boolean;
  defaultMeta?: any;
}
interface Procedure<Kind extends 'query' | 'mutation' | 'subscription', Input, Output> {
  _type: Kind;
  _procedure: true;
  _def: {
    _config: Config;
    _meta: object;
    _ctx_out: object;
    _input_in: Input;
    _input_out: Input;
    _output_in: Output;
    _output_out: Output;
    inputs: any[];
    middlewares: any[];
  };
  meta?: object;
  (opts: any): Promise<unknown>;
}
type Query<Input, Output> = Procedure<'query', Input, Output>;
type Mutation<Input, Output> = Procedure<'mutation', Input, Output>;
type Subscription<Input, Item> = Procedure<'subscription', Input, Observable<Item, unknown>>;
interface Router<Members> {
  _def: {
    _config: Config;
    router: true;
    procedures: Members;
    record: Members;
    queries: {};
    mutations: {};
    subscriptions: {};
  };
  createCaller: any;
  getErrorShape: any;
}
"""

_TRACKED = "type Tracked<Data> = { id: string; data: Data };\n"

# Names that the file has already, and names of the language that an interface must not hide.
RESERVED: Final = frozenset(
    {"AppRouter", "Config", "ErrorCode", "ErrorShape", "Mutation", "Observable", "Procedure", "Query", "Router"}
    | {"Subscription", "Tracked", "Transformer", "Types"}
    | {
        "Array",
        "AsyncIterable",
        "Blob",
        "Boolean",
        "Date",
        "File",
        "FormData",
        "Function",
        "Number",
        "Object",
        "Promise",
    }
    | {"Record", "String", "Symbol", "Uint8Array"}
)


def preamble(client: Client, *, has_transformer: bool) -> str:
    head = f"// Made by oplata.rpc from a live router, for clients of tRPC {client}. Do not edit: make it again.\n"
    if client == "v11":
        return head + _SHARED + _V11.replace("@transformer@", str(has_transformer).lower()) + _TRACKED
    members = "input: any; output: any" if has_transformer else "input: any; output: any; _default: true"
    importing = "import type { Observable } from '@trpc/server/observable';\n"
    return head + importing + _SHARED + _V10.replace("@transformer@", members) + _TRACKED
