//! Loading modules: bounded before anything of them is looked at, translated whole, so that no call pays for it.

use std::sync::Arc;

use serde_json::Value;
use wasmi::{CompilationMode, Config, EnforcedLimits, Engine, ExternType, ValType};

use crate::{Fault, Grants, Host, Limits, call};

/// Bytes of a module at most.
pub const LONGEST_MODULE: usize = 4 * 1024 * 1024;
/// Calls inside of each other at most.
const RECURSION: usize = 1_000;
/// Bytes of the value stack at most.
const STACK: usize = 1024 * 1024;

/// What loads modules. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox {
    engine: Engine,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// A sandbox: work is counted, nothing runs before it is asked to.
    pub fn new() -> Self {
        let mut config = Config::default();
        config
            .consume_fuel(true)
            .allow_start_fn(false)
            .ignore_custom_sections(true)
            .set_max_recursion_depth(RECURSION)
            .set_max_stack_height(STACK)
            .set_max_cached_stacks(2)
            .compilation_mode(CompilationMode::Eager)
            .enforced_limits(EnforcedLimits::strict());
        Self { engine: Engine::new(&config) }
    }

    /// Reads a module and checks that it is a plugin's. It takes time in proportion to its length: not for threads that
    /// serve others.
    pub fn load(&self, wasm: &[u8]) -> Result<Module, Fault> {
        if wasm.len() > LONGEST_MODULE {
            return Err(Fault::Unloadable(format!("it has more than {LONGEST_MODULE} bytes")));
        }
        let module = wasmi::Module::new(&self.engine, wasm)
            .map_err(|error| Fault::Unloadable(call::said(&error.to_string())))?;
        let is_function =
            |name: &'static str, params: &[ValType], results: &[ValType]| match module.get_export(name) {
                Some(ExternType::Func(it)) if it.params() == params && it.results() == results => Ok(()),
                _ => Err(Fault::Missing(name)),
            };
        is_function("alloc", &[ValType::I32], &[ValType::I32])?;
        is_function("handle", &[ValType::I32, ValType::I32], &[ValType::I64])?;
        match module.get_export("memory") {
            Some(ExternType::Memory(_)) => {}
            _ => return Err(Fault::Missing("memory")),
        }
        let linker = call::linker(&self.engine);
        // What it imports beyond that is found now, and not when somebody needs it.
        for import in module.imports() {
            if import.module() != call::NAMESPACE || !call::is_known(import.name()) {
                let name = call::said(&format!("{}.{}", import.module(), import.name()));
                return Err(Fault::Unloadable(format!("it imports `{name}`, which there is not")));
            }
        }
        Ok(Module(Arc::new(Loaded { engine: self.engine.clone(), module, linker })))
    }
}

/// A module that can be called. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Module(Arc<Loaded>);

#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) module: wasmi::Module,
    pub(crate) linker: wasmi::Linker<call::State>,
}

impl Module {
    /// Calls `handle` of a new instance with `input`. It blocks until the answer or the fault: not for threads that serve
    /// others.
    pub fn call(
        &self,
        input: &Value,
        host: Box<dyn Host>,
        grants: &Grants,
        limits: &Limits,
    ) -> Result<Value, Fault> {
        call::call(&self.0, input, host, grants.clone(), *limits)
    }
}
