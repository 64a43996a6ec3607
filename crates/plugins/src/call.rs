//! One call: a new instance, fuel in slices so that time can be looked at between them, and what the module asks for.

use std::{fmt, time::Instant};

use serde_json::{Value, json};
use wasmi::{
    Caller, Engine, Error, Instance, Linker, Memory, Store, StoreLimits, StoreLimitsBuilder, TypedFunc,
    TypedResumableCall, errors::HostError,
};

use crate::{Fault, Function, Grants, Host, Limits, sandbox::Loaded};

/// Where a module finds the functions of the host.
pub(crate) const NAMESPACE: &str = "tidegate";
/// Units of work between two looks at the clock: a few milliseconds.
const SLICE: u64 = 2_000_000;
/// What a call of the host costs beside what it does.
const HOST_FUEL: u64 = 1_000;

/// Whether the host has a function of this name.
pub(crate) fn is_known(name: &str) -> bool {
    Function::ALL.iter().any(|function| function.as_str() == name)
}

/// What belongs to one call.
pub(crate) struct State {
    host: Box<dyn Host>,
    grants: Grants,
    limits: Limits,
    deadline: Instant,
    store: StoreLimits,
    /// Units of work that are left beyond the slice that runs.
    reserve: u64,
    calls: u32,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// A fault on its way through the interpreter.
#[derive(Debug)]
struct Ended(Fault);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl HostError for Ended {}

fn ended(fault: Fault) -> Error {
    Error::host(Ended(fault))
}

/// Text of a module or about it, harmless in a log and a table.
pub(crate) fn said(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// The functions of the host, which ask for themselves whether they were granted: a module that may not use one can be
/// loaded, and is told of when it tries.
pub(crate) fn linker(engine: &Engine) -> Linker<State> {
    let mut linker = Linker::new(engine);
    linker.allow_shadowing(true);
    for function in Function::ALL {
        let run =
            move |mut caller: Caller<'_, State>, ptr: i32, len: i32| asked(&mut caller, function, ptr, len);
        // The names differ, and shadowing is allowed besides: there is nothing that could be refused.
        drop(linker.func_wrap(NAMESPACE, function.as_str(), run).map(|_| ()));
    }
    linker
}

pub(crate) fn call(
    loaded: &Loaded,
    input: &Value,
    host: Box<dyn Host>,
    grants: Grants,
    limits: Limits,
) -> Result<Value, Fault> {
    let input = serde_json::to_vec(input).map_err(|error| Fault::Nonsense("was given", error.to_string()))?;
    if input.len() > limits.message_bytes {
        return Err(Fault::Told(limits.message_bytes));
    }
    let state = State {
        host,
        grants,
        limits,
        deadline: Instant::now() + limits.time,
        store: StoreLimitsBuilder::new()
            .memory_size(limits.memory_bytes)
            .memories(1)
            .tables(4)
            .table_elements(10_000)
            .instances(1)
            .trap_on_grow_failure(true)
            .build(),
        reserve: limits.fuel,
        calls: 0,
    };
    let mut store = Store::new(&loaded.engine, state);
    store.limiter(|state| &mut state.store);
    run(loaded, &mut store, &input).map_err(|error| fault(&error, limits))
}

fn run(loaded: &Loaded, store: &mut Store<State>, input: &[u8]) -> Result<Value, Error> {
    refuel(store, 0)?;
    let instance = loaded.linker.instantiate_and_start(&mut *store, &loaded.module)?;
    let memory = memory(instance, store)?;
    let alloc = instance.get_typed_func::<i32, i32>(&*store, "alloc")?;
    let handle = instance.get_typed_func::<(i32, i32), i64>(&*store, "handle")?;
    let room = to_end(store, alloc, length(input)?)?;
    write(memory.data_mut(&mut *store), room, input)?;
    let packed = to_end(store, handle, (room, length(input)?))?;
    let most = store.data().limits.message_bytes;
    let (ptr, len) = unpack(packed);
    if len == 0 {
        return Ok(Value::Null);
    }
    read(memory.data(&*store), ptr, len, most, "answered")
}

/// Runs a function to its end, a slice at a time.
fn to_end<P: wasmi::WasmParams, R: wasmi::WasmResults>(
    store: &mut Store<State>,
    function: TypedFunc<P, R>,
    params: P,
) -> Result<R, Error> {
    let mut step = function.call_resumable(&mut *store, params)?;
    loop {
        match step {
            TypedResumableCall::Finished(result) => return Ok(result),
            TypedResumableCall::HostTrap(trap) => return Err(same(trap.host_error())),
            TypedResumableCall::OutOfFuel(paused) => {
                refuel(store, paused.required_fuel())?;
                step = paused.resume(&mut *store)?;
            }
        }
    }
}

/// A host's error once more: what it stands in is not to be had out of a paused call.
fn same(error: &Error) -> Error {
    match error.downcast_ref::<Ended>() {
        Some(Ended(fault)) => ended(fault.clone()),
        None => Error::new(error.to_string()),
    }
}

/// The next slice, if there is time and work left.
fn refuel(store: &mut Store<State>, needed: u64) -> Result<(), Error> {
    let left = store.get_fuel()?;
    let state = store.data_mut();
    let now = Instant::now();
    if now >= state.deadline {
        return Err(ended(Fault::Time(state.limits.time.as_millis())));
    }
    let slice = SLICE.max(needed).min(state.reserve);
    if slice == 0 || left.saturating_add(slice) < needed {
        return Err(ended(Fault::Fuel));
    }
    state.reserve -= slice;
    store.set_fuel(left.saturating_add(slice))
}

/// A module asks for something.
fn asked(caller: &mut Caller<'_, State>, function: Function, ptr: i32, len: i32) -> Result<i64, Error> {
    let state = caller.data_mut();
    let limits = state.limits;
    state.calls += 1;
    if state.calls > limits.host_calls {
        return Err(ended(Fault::Calls(limits.host_calls)));
    }
    if !state.grants.allow(function.needs()) {
        return Err(ended(Fault::NotGranted(function, function.needs())));
    }
    let memory = exported(caller)?;
    let request =
        read(memory.data(&*caller), ptr.cast_unsigned(), len.cast_unsigned(), limits.message_bytes, "asked")?;
    let state = caller.data_mut();
    let deadline = state.deadline;
    let answer = match state.host.answer(function, request, deadline) {
        Ok(answer) => json!({"ok": answer}),
        Err(complaint) => json!({"error": complaint}),
    };
    if Instant::now() >= deadline {
        return Err(ended(Fault::Time(limits.time.as_millis())));
    }
    let mut answer = serde_json::to_vec(&answer).map_err(|error| Error::new(error.to_string()))?;
    if answer.len() > limits.message_bytes {
        answer = br#"{"error":"the answer is too long"}"#.to_vec();
    }
    let room = allocate(caller, length(&answer)?)?;
    write(memory.data_mut(&mut *caller), room, &answer)?;
    Ok((i64::from(room.cast_unsigned()) << 32) | i64::from(length(&answer)?))
}

/// Room for an answer, from the module itself. It is called from inside of a slice, where it cannot be paused: so it gets
/// everything that is left, and what it did not use is put back.
fn allocate(caller: &mut Caller<'_, State>, len: i32) -> Result<i32, Error> {
    let alloc = caller
        .get_export("alloc")
        .and_then(wasmi::Extern::into_func)
        .ok_or_else(|| ended(Fault::Missing("alloc")))?;
    let alloc = alloc.typed::<i32, i32>(&*caller)?;
    let slice = caller.get_fuel()?;
    let whole = slice.saturating_add(caller.data().reserve);
    caller.set_fuel(whole.min(slice.saturating_add(SLICE)))?;
    let given = caller.get_fuel()?;
    let limits = caller.data().limits;
    // What fails in there is told as itself: outside it would be an error of the host's.
    let room = alloc.call(&mut *caller, len).map_err(|error| ended(fault(&error, limits)))?;
    let used = given.saturating_sub(caller.get_fuel()?).saturating_add(HOST_FUEL);
    caller.set_fuel(slice.saturating_sub(used))?;
    let state = caller.data_mut();
    state.reserve = state.reserve.saturating_sub(used.saturating_sub(slice));
    Ok(room)
}

fn exported(caller: &Caller<'_, State>) -> Result<Memory, Error> {
    caller
        .get_export("memory")
        .and_then(wasmi::Extern::into_memory)
        .ok_or_else(|| ended(Fault::Missing("memory")))
}

fn memory(instance: Instance, store: &Store<State>) -> Result<Memory, Error> {
    instance.get_memory(store, "memory").ok_or_else(|| ended(Fault::Missing("memory")))
}

fn length(bytes: &[u8]) -> Result<i32, Error> {
    i32::try_from(bytes.len()).map_err(|_| Error::new("a message is too long"))
}

fn unpack(packed: i64) -> (u32, u32) {
    let packed = packed.cast_unsigned();
    let low = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (low(packed >> 32), low(packed))
}

fn read(memory: &[u8], ptr: u32, len: u32, most: usize, what: &'static str) -> Result<Value, Error> {
    let nonsense = |why: &str| ended(Fault::Nonsense(what, said(why)));
    let (start, len) = (ptr as usize, len as usize);
    if len > most {
        return Err(nonsense(&format!("it has more than {most} bytes")));
    }
    let bytes = start.checked_add(len).and_then(|end| memory.get(start..end));
    let bytes = bytes.ok_or_else(|| nonsense("it lies outside of its memory"))?;
    serde_json::from_slice(bytes).map_err(|error| nonsense(&error.to_string()))
}

fn write(memory: &mut [u8], room: i32, bytes: &[u8]) -> Result<(), Error> {
    let start = room.cast_unsigned() as usize;
    let place = start.checked_add(bytes.len()).and_then(|end| memory.get_mut(start..end));
    let outside = || ended(Fault::Nonsense("allocated", "it lies outside of its memory".to_owned()));
    place.ok_or_else(outside)?.copy_from_slice(bytes);
    Ok(())
}

/// What the interpreter said, as a fault of the module.
fn fault(error: &Error, limits: Limits) -> Fault {
    if let Some(Ended(fault)) = error.downcast_ref::<Ended>() {
        return fault.clone();
    }
    match error.as_trap_code() {
        Some(wasmi::TrapCode::OutOfFuel) => Fault::Fuel,
        Some(wasmi::TrapCode::GrowthOperationLimited) => Fault::Memory(limits.memory_bytes / 1024 / 1024),
        _ => Fault::Trapped(said(&error.to_string())),
    }
}
