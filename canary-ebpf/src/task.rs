//! Fields of `task_struct`, read at offsets that the daemon takes from this kernel's own BTF before loading.
//!
//! The offsets live in frozen read-only data, so the verifier sees constants and checks each access against BTF:
//! a direct load, without `bpf_probe_read_kernel`.

use core::ffi::c_void;

use aya_ebpf::Global;

#[unsafe(no_mangle)]
static TASK_PID: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_TGID: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_STATE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_EXIT_CODE: Global<u64> = Global::new(0);

/// `task_struct` as a typed tracepoint hands it over.
#[derive(Clone, Copy)]
pub struct TaskPtr(pub *const c_void);

impl TaskPtr {
    #[inline(always)]
    pub fn pid(self) -> u32 {
        self.read(&TASK_PID)
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.read(&TASK_TGID)
    }

    #[inline(always)]
    pub fn state(self) -> u32 {
        self.read(&TASK_STATE)
    }

    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        self.read(&TASK_EXIT_CODE)
    }

    #[inline(always)]
    fn read(self, offset: &Global<u64>) -> u32 {
        // SAFETY: a trusted BTF pointer plus an offset of that struct's BTF; the verifier checks the access.
        unsafe { self.0.cast::<u8>().add(offset.load() as usize).cast::<u32>().read_volatile() }
    }
}
