//! A plugin without a dependency, and without the standard library's allocator behind it: built by any `rustc` that knows
//! `wasm32-unknown-unknown`, see `examples/plugins/build`.
#![crate_type = "cdylib"]

use std::sync::Mutex;

#[link(wasm_import_module = "tidegate")]
extern "C" {
    fn kv(ptr: *const u8, len: usize) -> u64;
    fn log(ptr: *const u8, len: usize) -> u64;
}

static LAST: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Room for the platform to write into; it stays until the call is over.
#[no_mangle]
pub extern "C" fn alloc(len: usize) -> *mut u8 {
    let mut room = vec![0; len.max(1)];
    let at = room.as_mut_ptr();
    LAST.lock().unwrap().push(room);
    at
}

/// What is answered must stay where it is, too.
fn answer(text: String) -> u64 {
    let bytes = text.into_bytes();
    let packed = (bytes.as_ptr() as u64) << 32 | bytes.len() as u64;
    LAST.lock().unwrap().push(bytes);
    packed
}

fn read(packed: u64) -> String {
    let (at, len) = ((packed >> 32) as usize, (packed & 0xffff_ffff) as usize);
    let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, len) };
    String::from_utf8_lossy(bytes).into_owned()
}

fn ask(function: unsafe extern "C" fn(*const u8, usize) -> u64, request: &str) -> String {
    read(unsafe { function(request.as_ptr(), request.len()) })
}

/// The text of a field, as far as this plugin needs JSON: the first field of this name whose value is a text.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let start = json.find(&format!("\"{}\":\"", name))? + name.len() + 4;
    let rest = &json[start..];
    Some(&rest[..rest.find('"')?])
}

#[no_mangle]
pub extern "C" fn handle(ptr: *const u8, len: usize) -> u64 {
    let input = read((ptr as u64) << 32 | len as u64);
    match field(&input, "kind") {
        Some("sessionStarting") => {
            let (refused, template) = (field(&input, "refused").unwrap_or(""), field(&input, "template").unwrap_or(""));
            if !refused.is_empty() && refused == template {
                return answer(format!("{{\"veto\":\"the template {} is not for everybody\"}}", template));
            }
            answer("{}".to_string())
        }
        Some("event") => {
            let kept = ask(kv, "{\"op\":\"get\",\"key\":\"started\"}");
            let digits: String = kept.chars().filter(|c| c.is_ascii_digit()).collect();
            let count = digits.parse::<u64>().unwrap_or(0) + 1;
            ask(kv, &format!("{{\"op\":\"set\",\"key\":\"started\",\"value\":{}}}", count));
            ask(log, &format!("{{\"level\":\"info\",\"message\":\"{} sessions were asked for\"}}", count));
            answer("{}".to_string())
        }
        _ => answer("null".to_string()),
    }
}
