//! The header of a safetensors file, believed only as far as it agrees with the file.

use crate::json::shortened;
use safetensors::tensor::TensorInfo;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use std::{collections::HashSet, fmt, ops::Range};

/// The most bytes of a header. The full-size model's takes 0.4 MB.
const MOST: u64 = 16 << 20;
/// The header is preceded by its length in so many bytes.
const LENGTH: usize = 8;
/// The longest name of a tensor, in bytes.
const LONGEST_NAME: usize = 256;
/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;
/// The name in a header that is no tensor's.
const METADATA: &str = "__metadata__";

/// A tensor of a header.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: String,
    pub info: TensorInfo,
    /// Where it lies in the file.
    pub range: Range<usize>,
}

/// The tensors of a file with this content. Together they take all bytes behind the header, each
/// byte belongs to one of them, and each has the bytes that its shape and type want.
///
/// # Errors
/// What is wrong, as the end of a sentence about the file.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Entry>, String> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(format!(
            "it is {} bytes long, too short for a header",
            file.len()
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > rest.len() as u64 {
        return Err(format!(
            "its header is said to be {length} bytes long, and {} follow",
            rest.len()
        ));
    }
    if length > MOST {
        return Err(format!(
            "its header is {length} bytes long, and more than {MOST} are not taken"
        ));
    }
    // It is not longer than the file.
    let (header, data) = rest.split_at(length as usize);
    let header =
        std::str::from_utf8(header).map_err(|e| format!("its header is not UTF-8: {e}"))?;
    let header: Header =
        serde_json::from_str(header).map_err(|e| format!("its header is not valid: {e}"))?;
    let mut tensors = header.0;
    // Empty ones first where several begin at one place.
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    check(&tensors, data.len())?;
    let start = file.len() - data.len();
    let place = |(name, info): (String, TensorInfo)| Entry {
        range: start + info.data_offsets.0..start + info.data_offsets.1,
        name,
        info,
    };
    Ok(tensors.into_iter().map(place).collect())
}

/// Checks tensors in the order of their places among `data` bytes.
fn check(tensors: &[(String, TensorInfo)], data: usize) -> Result<(), String> {
    let (mut taken, mut before) = (0, "");
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        let size = size(info).map_err(|reason| format!("tensor {name} {reason}"))?;
        if end.checked_sub(start) != Some(size) {
            return Err(format!(
                "tensor {name} lies at {start}..{end}, and {:?} values of type {} take {size} bytes",
                info.shape, info.dtype
            ));
        }
        if end > data {
            return Err(format!(
                "tensor {name} lies at {start}..{end} of the data, of which there are {data} bytes: \
                 the file is incomplete"
            ));
        }
        if start < taken {
            return Err(format!(
                "the tensors {before} and {name} overlap: one ends at {taken}, the other begins at \
                 {start}"
            ));
        }
        if start > taken {
            return Err(format!(
                "the bytes {taken}..{start}, before tensor {name}, belong to no tensor"
            ));
        }
        (taken, before) = (end, name);
    }
    if taken != data {
        return Err(format!(
            "the last {} bytes belong to no tensor",
            data - taken
        ));
    }
    Ok(())
}

/// The bytes of a tensor's values.
fn size(info: &TensorInfo) -> Result<usize, String> {
    if info.shape.len() > MOST_DIMENSIONS {
        return Err(format!("has {} dimensions", info.shape.len()));
    }
    let values = info.shape.iter().copied().try_fold(1, usize::checked_mul);
    let bits = values.and_then(|n| n.checked_mul(info.dtype.bitsize()));
    let Some(bits) = bits else {
        return Err(format!(
            "has the shape {:?}, more than can be addressed",
            info.shape
        ));
    };
    if !bits.is_multiple_of(8) {
        return Err(format!("of {bits} bits does not end with a byte"));
    }
    Ok(bits / 8)
}

/// Names and places as a header gives them, each name once.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut names = HashSet::new();
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let quoted = shortened(&format!("{name:?}"));
                    if name.len() > LONGEST_NAME || name.contains(char::is_control) {
                        let message = format!("{quoted} is no name of a tensor");
                        return Err(A::Error::custom(message));
                    }
                    if names.contains(&name) {
                        return Err(A::Error::custom(format!("{quoted} is given twice")));
                    }
                    names.insert(name.clone());
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let info = map.next_value();
                    let info =
                        info.map_err(|e| A::Error::custom(format!("tensor {quoted}: {e}")))?;
                    tensors.push((name, info));
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}
