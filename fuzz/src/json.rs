//! JSON with some of its values changed.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Number, Value, json};

/// The first byte of inputs that are a list of changes; JSON cannot begin with it.
pub const CHANGES: u8 = 0xFF;

/// The JSON that `data` stands for: a list of changes to `base`, or itself. `parts` are values
/// worth putting in.
pub fn of(data: &[u8], base: &Value, parts: &[Value]) -> Vec<u8> {
    let Some((&CHANGES, changes)) = data.split_first() else {
        return data.to_vec();
    };
    let mut value = base.clone();
    let mut changes = Unstructured::new(changes);
    for _ in 0..8 {
        if changes.is_empty() || change(&mut value, parts, &mut changes).is_err() {
            break;
        }
    }
    value.to_string().into_bytes()
}

/// Changes one value, found by a random way down.
fn change(value: &mut Value, parts: &[Value], u: &mut Unstructured<'_>) -> Result<()> {
    let mut at = value;
    while !u.ratio(1, 6)? {
        let inside = match at {
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
        if inside == 0 {
            *at = new(parts, u)?;
            return Ok(());
        }
        let (index, remove) = (u.choose_index(inside)?, u.ratio(1, 16)?);
        at = match at {
            Value::Array(items) if remove => return Ok(drop(items.remove(index))),
            Value::Array(items) => &mut items[index],
            Value::Object(members) => {
                let name = members.keys().nth(index).cloned().unwrap_or_default();
                if remove {
                    return Ok(drop(members.remove(&name)));
                }
                &mut members[&name]
            }
            _ => return Ok(()),
        };
    }
    match at {
        Value::Array(items) => items.push(new(parts, u)?),
        Value::Object(members) => {
            let name = u.arbitrary::<String>()?;
            members.insert(name, new(parts, u)?);
        }
        leaf => *leaf = new(parts, u)?,
    }
    Ok(())
}

/// A value: a number at some bound, a text, a part, or a list of one.
fn new(parts: &[Value], u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => Value::Bool(u.arbitrary()?),
        2 => u.int_in_range(0..=300_u64)?.into(),
        3 => (1_u64 << u.int_in_range(0..=63)?)
            .wrapping_sub(u.arbitrary::<bool>()?.into())
            .into(),
        4 => u.arbitrary::<i64>()?.into(),
        5 => Number::from_f64(u.arbitrary()?).into(),
        6 => u.arbitrary::<String>()?.into(),
        7 if parts.is_empty() => json!([new(parts, u)?]),
        7 | 8 if !parts.is_empty() => {
            let mut part = u.choose(parts)?.clone();
            // One of its values is changed in turn.
            if let (Value::Object(members), true) = (&mut part, u.arbitrary()?) {
                let index = u.choose_index(members.len().max(1))?;
                if let Some(value) = members.values_mut().nth(index) {
                    *value = new(parts, u)?;
                }
            }
            part
        }
        8 => Value::Object(Map::new()),
        _ => json!([new(parts, u)?]),
    })
}
