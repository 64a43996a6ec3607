//! What a module may do, and what becomes of one that does more.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

use std::{
    sync::mpsc::{Sender, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidegate_plugins::{Fault, Function, Grants, Host, Limits, Module, Nothing, Permission, Sandbox};

/// A module whose `handle` has this body; `$ptr` and `$len` are what it was given. What `alloc` gives is never given back.
fn module(imports: &str, handle: &str) -> Module {
    let text = format!(
        r#"(module {imports}
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 4096))
            (data (i32.const 0) "{{\"key\":\"a\",\"op\":\"get\"}}")
            (data (i32.const 100) "not JSON")
            (func $alloc (export "alloc") (param $len i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $next))
                (global.set $next (i32.add (global.get $next) (local.get $len)))
                (local.get $at))
            (func $pack (param i32 i32) (result i64)
                (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))
            (func (export "handle") (param $ptr i32) (param $len i32) (result i64) {handle}))"#
    );
    Sandbox::new().load(&wat::parse_str(text).unwrap()).unwrap()
}

const KV: &str = r#"(import "tidegate" "kv" (func $kv (param i32 i32) (result i64)))"#;

fn run(module: &Module) -> Result<Value, Fault> {
    module.call(&json!({"a": 1}), Box::new(Nothing), &Grants::of(["kv"]), &patient())
}

/// Limits with time enough to do all the work that is allowed, however busy the machine is.
fn patient() -> Limits {
    Limits { time: Duration::from_mins(2), ..Limits::default() }
}

/// Remembers what it was asked, and answers always the same.
struct Told(Sender<(Function, Value)>, Result<Value, String>);

impl Host for Told {
    fn answer(&mut self, function: Function, request: Value, _: Instant) -> Result<Value, String> {
        drop(self.0.send((function, request)));
        self.1.clone()
    }
}

#[test]
fn a_module_is_given_json_and_gives_json() {
    let echo = module("", "(call $pack (local.get $ptr) (local.get $len))");
    assert_eq!(run(&echo), Ok(json!({"a": 1})));
    assert_eq!(run(&module("", "(i64.const 0)")), Ok(Value::Null));
}

#[test]
fn nothing_is_left_of_one_call_for_the_next() {
    let body = "(i32.store8 (i32.const 200) (i32.add (i32.const 1) (i32.load8_u (i32.const 200))))
        (i32.store8 (i32.const 201) (i32.add (i32.const 48) (i32.load8_u (i32.const 200))))
        (call $pack (i32.const 201) (i32.const 1))";
    let counts = module("", body);
    assert_eq!((run(&counts), run(&counts)), (Ok(json!(1)), Ok(json!(1))));
}

#[test]
fn a_function_that_was_granted_is_answered() {
    let asks = module(KV, "(call $kv (i32.const 0) (i32.const 22))");
    for (said, answered) in [
        (Ok(json!({"n": 7})), json!({"ok": {"n": 7}})),
        (Err("there is no such key".to_owned()), json!({"error": "there is no such key"})),
    ] {
        let (told, heard) = channel();
        let answer =
            asks.call(&json!({}), Box::new(Told(told, said)), &Grants::of(["kv"]), &Limits::default());
        assert_eq!(answer, Ok(answered));
        let asked: Vec<_> = heard.try_iter().collect();
        assert_eq!(asked, [(Function::Kv, json!({"op": "get", "key": "a"}))]);
    }
}

#[test]
fn a_function_that_was_not_granted_is_a_fault_and_never_reaches_the_host() {
    let asks = module(KV, "(call $kv (i32.const 0) (i32.const 22))");
    let (told, heard) = channel();
    let host = Box::new(Told(told, Ok(Value::Null)));
    let fault = asks.call(&json!({}), host, &Grants::of(["log", "sessions:read"]), &Limits::default());
    let fault = fault.unwrap_err();
    assert_eq!(fault, Fault::NotGranted(Function::Kv, Permission::Kv));
    assert_eq!(fault.to_string(), "it called `kv` without the permission `kv`");
    assert_eq!(heard.try_iter().count(), 0);
}

#[test]
fn a_module_that_loops_runs_out_of_work_or_time_whichever_is_first() {
    let loops = module("", "(loop $on (br $on)) (unreachable)");
    assert_eq!(run(&loops), Err(Fault::Fuel));
    let limits = Limits { fuel: u64::MAX, time: Duration::from_millis(50), ..Limits::default() };
    let before = Instant::now();
    let fault = loops.call(&json!({}), Box::new(Nothing), &Grants::none(), &limits);
    assert_eq!(fault, Err(Fault::Time(50)));
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
}

#[test]
fn a_host_that_is_slow_counts_as_the_modules_time() {
    struct Slow;
    impl Host for Slow {
        fn answer(&mut self, _: Function, _: Value, deadline: Instant) -> Result<Value, String> {
            while Instant::now() < deadline {
                std::thread::yield_now();
            }
            Ok(Value::Null)
        }
    }
    let asks = module(KV, "(call $kv (i32.const 0) (i32.const 22))");
    let limits = Limits { time: Duration::from_millis(30), ..Limits::default() };
    assert_eq!(asks.call(&json!({}), Box::new(Slow), &Grants::of(["kv"]), &limits), Err(Fault::Time(30)));
}

#[test]
fn a_module_that_allocates_without_end_gets_no_more_than_its_share() {
    let grows = module("", "(loop $on (drop (memory.grow (i32.const 16))) (br $on)) (unreachable)");
    assert_eq!(run(&grows), Err(Fault::Memory(32)));
    let text = r#"(module (memory (export "memory") 20000) (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))"#;
    let large = Sandbox::new().load(&wat::parse_str(text).unwrap()).unwrap();
    run(&large).unwrap_err();
}

#[test]
fn a_module_that_calls_itself_without_end_is_stopped() {
    let text = r#"(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func $handle (export "handle") (param i32 i32) (result i64)
            (i64.add (i64.const 1) (call $handle (local.get 0) (local.get 1)))))"#;
    let deep = Sandbox::new().load(&wat::parse_str(text).unwrap()).unwrap();
    assert!(matches!(run(&deep), Err(Fault::Trapped(_))), "{:?}", run(&deep));
}

#[test]
fn a_module_that_asks_without_end_is_stopped() {
    let asks = module(KV, "(loop $on (drop (call $kv (i32.const 0) (i32.const 22))) (br $on)) (unreachable)");
    assert_eq!(run(&asks), Err(Fault::Calls(64)));
}

#[test]
fn nonsense_is_told_from_an_answer() {
    let said = |handle: &str| run(&module(KV, handle)).unwrap_err().to_string();
    let no_json = said("(call $pack (i32.const 100) (i32.const 8))");
    assert!(no_json.starts_with("what it answered cannot be read: expected"), "{no_json}");
    for outside in
        ["(call $pack (i32.const 65530) (i32.const 100))", "(call $pack (i32.const -1) (i32.const 1))"]
    {
        assert_eq!(said(outside), "what it answered cannot be read: it lies outside of its memory");
    }
    let long = said("(call $pack (i32.const 0) (i32.const -1))");
    assert_eq!(long, "what it answered cannot be read: it has more than 1048576 bytes");
    let asked = said("(call $kv (i32.const 100) (i32.const 8))");
    assert!(asked.starts_with("what it asked cannot be read: expected"), "{asked}");
    let trapped = said("(unreachable)");
    assert!(trapped.starts_with("it trapped: "), "{trapped}");
}

#[test]
fn room_outside_of_the_memory_is_not_written_into() {
    for (alloc, said) in [
        ("(i32.const -8)", "what it allocated cannot be read: it lies outside of its memory"),
        ("(loop $on (br $on)) (unreachable)", "it did more work than one call may do"),
    ] {
        let text = format!(
            r#"(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) {alloc})
            (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))"#
        );
        let module = Sandbox::new().load(&wat::parse_str(text).unwrap()).unwrap();
        assert_eq!(run(&module).unwrap_err().to_string(), said);
    }
}

/// A module whose `alloc` works without end when it is called for the host's answer.
#[test]
fn an_alloc_that_loops_for_an_answer_is_stopped_too() {
    let text = r#"(module (import "tidegate" "kv" (func $kv (param i32 i32) (result i64)))
        (memory (export "memory") 1) (data (i32.const 0) "{}") (global $asked (mut i32) (i32.const 0))
        (func (export "alloc") (param i32) (result i32)
            (if (global.get $asked) (then (loop $on (br $on)))) (i32.const 1024))
        (func (export "handle") (param i32 i32) (result i64)
            (global.set $asked (i32.const 1)) (call $kv (i32.const 0) (i32.const 2))))"#;
    let module = Sandbox::new().load(&wat::parse_str(text).unwrap()).unwrap();
    assert_eq!(run(&module), Err(Fault::Fuel));
}

#[test]
fn what_is_no_plugin_is_refused_when_it_is_loaded() {
    let refused = |text: &str| Sandbox::new().load(&wat::parse_str(text).unwrap()).unwrap_err().to_string();
    assert_eq!(refused("(module)"), "it does not export `alloc` as a plugin has to");
    let text = r#"(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32) (result i64) (i64.const 0)))"#;
    assert_eq!(refused(text), "it does not export `handle` as a plugin has to");
    let handles = r#"(func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0))"#;
    assert_eq!(refused(&format!("(module {handles})")), "it does not export `memory` as a plugin has to");
    let imports =
        r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#;
    let imported = refused(&format!(r#"(module {imports} (memory (export "memory") 1) {handles})"#));
    assert_eq!(
        imported,
        "it is no module that can be run: it imports `wasi_snapshot_preview1.fd_write`, which there is not"
    );
    assert!(matches!(Sandbox::new().load(b"\0asm nothing"), Err(Fault::Unloadable(_))));
    assert!(matches!(Sandbox::new().load(&vec![0; 5 * 1024 * 1024]), Err(Fault::Unloadable(_))));
    // Of another type than the host's: found at the first call.
    let other = r#"(module (import "tidegate" "kv" (func (param i64))) (memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))"#;
    run(&Sandbox::new().load(&wat::parse_str(other).unwrap()).unwrap()).unwrap_err();
}

#[test]
fn a_start_function_runs_nothing() {
    let text = r#"(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0)) (func $go (loop $on (br $on))) (start $go))"#;
    let loaded = Sandbox::new().load(&wat::parse_str(text).unwrap());
    assert!(loaded.is_err() || run(&loaded.unwrap()).is_err());
}

#[test]
fn more_than_it_may_be_told_is_no_fault_of_a_module() {
    let echo = module("", "(call $pack (local.get $ptr) (local.get $len))");
    let limits = Limits { message_bytes: 20, ..Limits::default() };
    let told = |text: &str| echo.call(&json!(text), Box::new(Nothing), &Grants::none(), &limits);
    assert_eq!(told(&"a".repeat(18)), Ok(json!("a".repeat(18))));
    assert_eq!(told(&"a".repeat(19)), Err(Fault::Told(20)));
}
