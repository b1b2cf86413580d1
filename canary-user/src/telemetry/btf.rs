//! Just enough of the BPF Type Format to ask a kernel where a struct's member lies and what a tracepoint passes.
//!
//! Layout: Documentation/bpf/btf.rst of the kernel. Numbers are in the byte order of the running kernel.

use anyhow::{Context as _, bail, ensure};

const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type`.
const TYPE_BYTES: usize = 12;

const PTR: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const FUNC_PROTO: u32 = 13;

/// A kernel's types, as raw bytes with an index.
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type begins; `starts[id - 1]`, because id 0 is void.
    starts: Vec<usize>,
    strings: usize,
}

#[derive(Clone, Copy)]
struct Type {
    start: usize,
    name: u32,
    kind: u32,
    /// Number of members or parameters.
    count: usize,
    /// Whether member offsets also hold a bit-field's size.
    kind_flag: bool,
    /// The type that this one refers to, for kinds that refer to one.
    target: u32,
}

impl Btf {
    /// # Errors
    /// Where the bytes are not BTF, or hold a kind of type that is newer than this reader.
    pub fn parse(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let mut btf = Self { bytes, starts: Vec::new(), strings: 0 };
        let magic = btf.bytes.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b));
        ensure!(magic == Some(MAGIC), "not BTF: the magic number is missing");
        let header = btf.u32_at(4)? as usize;
        let (types, types_bytes) = (btf.u32_at(8)? as usize, btf.u32_at(12)? as usize);
        btf.strings = header + btf.u32_at(16)? as usize;
        let mut at = header + types;
        let end = at + types_bytes;
        while at < end {
            btf.starts.push(at);
            let ty = btf.read(at)?;
            at += TYPE_BYTES + trailing_bytes(ty.kind, ty.count)?;
        }
        Ok(btf)
    }

    /// Byte offset of the first of `members` that the struct has, itself or in what lies in it without a name.
    pub fn member_offset(&self, name: &str, members: &[&str]) -> anyhow::Result<u64> {
        for ty in self.named(STRUCT, name) {
            for member in members {
                if let Some(offset) = self.offset_in(ty, member)? {
                    return Ok(offset);
                }
            }
        }
        bail!("struct {name} has no member {} in this kernel's BTF", members.join(" or "))
    }

    fn offset_in(&self, ty: Type, member: &str) -> anyhow::Result<Option<u64>> {
        for i in 0..ty.count {
            let at = ty.start + TYPE_BYTES + i * 12;
            let (name, offset) = (self.u32_at(at)?, self.u32_at(at + 8)?);
            let bytes = u64::from(if ty.kind_flag { offset & 0x00ff_ffff } else { offset }) / 8;
            if self.string_is(name, member) {
                return Ok(Some(bytes));
            }
            if name == 0
                && let Some(inner) = self.by_id(self.u32_at(at + 4)?)?.filter(|t| [STRUCT, UNION].contains(&t.kind))
                && let Some(further) = self.offset_in(inner, member)?
            {
                return Ok(Some(bytes + further));
            }
        }
        Ok(None)
    }

    /// For each argument of a tracepoint whether it is a pointer, by the typedef that the kernel makes for each
    /// (`btf_trace_<name>`). The first parameter of that prototype is the probe's private pointer and is left out.
    pub fn tracepoint_pointers(&self, tracepoint: &str) -> anyhow::Result<Vec<bool>> {
        let name = format!("btf_trace_{tracepoint}");
        let typedef =
            self.named(TYPEDEF, &name).next().with_context(|| format!("no tracepoint {tracepoint} in BTF"))?;
        let mut ty = typedef;
        while ty.kind != FUNC_PROTO {
            ensure!(ty.kind == TYPEDEF || ty.kind == PTR, "{name} is no function in BTF");
            ty = self.by_id(ty.target)?.with_context(|| format!("{name} leads to void in BTF"))?;
        }
        (1..ty.count).map(|i| self.is_pointer(self.u32_at(ty.start + TYPE_BYTES + i * 8 + 4)?)).collect()
    }

    /// Looks through typedefs and qualifiers (volatile, const, restrict, type tag).
    fn is_pointer(&self, mut id: u32) -> anyhow::Result<bool> {
        while let Some(ty) = self.by_id(id)? {
            match ty.kind {
                PTR => return Ok(true),
                TYPEDEF | 9..=11 | 18 => id = ty.target,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    fn named(&self, kind: u32, name: &str) -> impl Iterator<Item = Type> {
        self.starts
            .iter()
            .filter_map(|at| self.read(*at).ok())
            .filter(move |ty| ty.kind == kind && self.string_is(ty.name, name))
    }

    /// `None` for void.
    fn by_id(&self, id: u32) -> anyhow::Result<Option<Type>> {
        let Some(index) = (id as usize).checked_sub(1) else { return Ok(None) };
        let start = self.starts.get(index).with_context(|| format!("BTF has no type {id}"))?;
        self.read(*start).map(Some)
    }

    fn read(&self, start: usize) -> anyhow::Result<Type> {
        let info = self.u32_at(start + 4)?;
        Ok(Type {
            start,
            name: self.u32_at(start)?,
            kind: info >> 24 & 0x1f,
            count: (info & 0xffff) as usize,
            kind_flag: info >> 31 != 0,
            target: self.u32_at(start + 8)?,
        })
    }

    fn string_is(&self, offset: u32, text: &str) -> bool {
        let at = self.strings + offset as usize;
        self.bytes.get(at..at + text.len()).is_some_and(|b| b == text.as_bytes())
            && self.bytes.get(at + text.len()) == Some(&0)
    }

    fn u32_at(&self, at: usize) -> anyhow::Result<u32> {
        let four = self.bytes.get(at..).and_then(|b| b.first_chunk::<4>());
        Ok(u32::from_ne_bytes(*four.with_context(|| format!("BTF ends before byte {at}"))?))
    }
}

/// Bytes that follow `struct btf_type`, by kind.
fn trailing_bytes(kind: u32, count: usize) -> anyhow::Result<usize> {
    Ok(match kind {
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        // integer, variable, declaration tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        // struct, union, data section, 64-bit enum
        4 | 5 | 15 | 19 => count * 12,
        // enum, function prototype
        6 | 13 => count * 8,
        _ => bail!("BTF has a type of kind {kind}, which is newer than this program"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One struct `s { a; b }` with `b` at byte 8, a tracepoint `t(void *, s *, int)`, and a struct `u` with a nameless `s`
    /// at byte 16.
    fn tiny() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0u\0btf_trace_t\0int\0";
        let at = |text: &str| {
            let found = strings.windows(text.len() + 1).position(|w| w == [text.as_bytes(), b"\0"].concat());
            found.expect("the string is there") as u32
        };
        let info = |kind: u32, count: u32| kind << 24 | count;
        let words = [
            // 1: int
            vec![at("int"), info(1, 0), 4, 32],
            // 2: struct s
            vec![at("s"), info(STRUCT, 2), 16, at("a"), 1, 0, at("b"), 1, 64],
            // 3: pointer to s, 4: prototype, 5: pointer to it, 6: its typedef
            vec![0, info(PTR, 0), 2],
            vec![0, info(FUNC_PROTO, 3), 0, 0, 3, 0, 3, 0, 1],
            vec![0, info(PTR, 0), 4],
            vec![at("btf_trace_t"), info(TYPEDEF, 0), 5],
            // 7: struct u
            vec![at("u"), info(STRUCT, 1), 32, 0, 2, 128],
        ]
        .concat();
        let types: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let header = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let mut bytes = [MAGIC.to_ne_bytes().as_slice(), &[1, 0]].concat();
        bytes.extend(header.iter().flat_map(|w| w.to_ne_bytes()));
        [bytes, types, strings.to_vec()].concat()
    }

    #[test]
    fn finds_members_and_arguments() {
        let btf = Btf::parse(tiny()).expect("BTF");
        assert_eq!(btf.member_offset("s", &["gone", "b"]).expect("b"), 8);
        assert_eq!(btf.member_offset("u", &["b"]).expect("b of the nameless"), 24);
        assert_eq!(btf.tracepoint_pointers("t").expect("t"), [true, false]);
        assert!(btf.member_offset("s", &["c"]).expect_err("no c").to_string().contains("has no member c"));
        assert!(btf.tracepoint_pointers("u").is_err());
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let whole = tiny();
        assert!(Btf::parse(b"no".to_vec()).is_err());
        for end in 0..whole.len() - 30 {
            let cut = Btf::parse(whole[..end].to_vec());
            assert!(cut.is_err() || cut.is_ok_and(|b| b.member_offset("s", &["b"]).is_err()), "cut at {end}");
        }
    }
}
