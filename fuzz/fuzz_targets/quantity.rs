//! Any bytes as a quantity: nothing panics, and what was read is the same number when written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_model::Quantity;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let again = quantity.to_string().parse::<Quantity>();
    assert_eq!(again, Ok(quantity), "{text:?} was written as {quantity}");
    let _ = (quantity.as_millis(), quantity.as_units(), quantity.to_cpu_string(), quantity.checked_add(quantity));
});
