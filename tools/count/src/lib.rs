// SPDX-License-Identifier: GPL-2.0
//! A plugin for QEMU: counts instructions, locked ones and accesses to memory
//! that the guest makes between two marks, and writes a line of the three for
//! each pair to the file that is given as `out=FILE`.
//!
//! A mark is an instruction that does nothing, which `raio-bench` executes: a
//! long no-op with a number in it, see [`MARK`]. All processors of the guest are
//! counted together; it is meant for one.
//!
//! With `profile=FILE` it also says where: between the marks, all of them together,
//! how many instructions there were from each address at which a block of them
//! begins, a line of the two for each. `raio-bench profile` finds the functions.
//!
//! Relies on QEMU for calling it from one thread at a time while it translates,
//! and for adding to the counters itself.

mod decode;

use decode::{is_locked, mark, Mark};
use qemu_plugin::{
    qemu_plugin_register_vcpu_mem_inline_per_vcpu,
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu, qemu_plugin_scoreboard_sum,
    sys::{
        qemu_plugin_mem_rw::QEMU_PLUGIN_MEM_RW, qemu_plugin_op::QEMU_PLUGIN_INLINE_ADD_U64,
        qemu_plugin_scoreboard_new,
    },
    Args, HasCallbacks, Info, PluginId, PluginU64, Register, Result, TranslationBlock, Value,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        Arc, Mutex, MutexGuard,
    },
};

/// One counter, which QEMU adds to.
#[derive(Clone, Copy)]
struct Counter(PluginU64);

// SAFETY: It says where a counter is; QEMU allows every thread to use that.
unsafe impl Send for Counter {}
// SAFETY: As above.
unsafe impl Sync for Counter {}

impl Counter {
    /// A new one, which is there until QEMU ends.
    fn new() -> Self {
        // SAFETY: QEMU lets a plugin do so once it is loaded, and it isn't freed.
        let score = unsafe { qemu_plugin_scoreboard_new(size_of::<u64>()) };
        Self(PluginU64 { score, offset: 0 })
    }

    fn get(self) -> u64 {
        qemu_plugin_scoreboard_sum(self.0)
    }
}

#[derive(Clone, Copy)]
struct Counters {
    instructions: Counter,
    locked: Counter,
    accesses: Counter,
}

impl Counters {
    fn get(self) -> [u64; 3] {
        [self.instructions, self.locked, self.accesses].map(Counter::get)
    }
}

/// What there was at the first mark, and where the line goes.
struct Output {
    begin: [u64; 3],
    file: File,
    profile: Option<Profile>,
}

/// Executions of blocks of instructions between marks.
struct Profile {
    path: String,
    /// By where they begin, and how many instructions they have: how often.
    blocks: HashMap<(u64, u64), Arc<AtomicU64>>,
    counts: Arc<AtomicBool>,
}

impl Profile {
    /// Counts that block from now on.
    fn add(&mut self, tb: &TranslationBlock) {
        let key = (tb.vaddr(), tb.size() as u64);
        let n = self.blocks.entry(key).or_default().clone();
        let counts = self.counts.clone();
        // Relaxed: one thread does all of it.
        tb.register_execute_callback(move |_| {
            if counts.load(Relaxed) {
                n.fetch_add(1, Relaxed);
            }
        });
    }

    fn write(&self) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&self.path)?);
        for ((at, size), n) in &self.blocks {
            match n.load(Relaxed) {
                0 => (),
                n => writeln!(file, "{at:x} {} {size}", n * size)?,
            }
        }
        file.flush()
    }
}

#[derive(Default)]
struct Count(Option<(Counters, Arc<Mutex<Output>>)>);

impl Register for Count {
    fn register(&mut self, _id: PluginId, args: &Args, _info: &Info) -> Result<()> {
        let Some(Value::String(path)) = args.parsed.get("out") else {
            panic!("raio-count: say where to, by out=FILE");
        };
        let file = File::create(path).unwrap_or_else(|e| panic!("raio-count: {path}: {e}"));
        let counters = Counters {
            instructions: Counter::new(),
            locked: Counter::new(),
            accesses: Counter::new(),
        };
        let profile = match args.parsed.get("profile") {
            Some(Value::String(path)) => Some(Profile {
                path: path.clone(),
                blocks: HashMap::new(),
                counts: Arc::default(),
            }),
            _ => None,
        };
        let output = Output {
            begin: [0; 3],
            file,
            profile,
        };
        self.0 = Some((counters, Arc::new(Mutex::new(output))));
        Ok(())
    }
}

impl HasCallbacks for Count {
    fn on_translation_block_translate(
        &mut self,
        _id: PluginId,
        tb: TranslationBlock,
    ) -> Result<()> {
        let Some((counters, output)) = &self.0 else {
            return Ok(());
        };
        let counters = *counters;
        if let Some(profile) = &mut lock(output).profile {
            profile.add(&tb);
        }
        let mut locked = 0;
        for insn in tb.instructions() {
            let bytes = insn.data();
            locked += u64::from(is_locked(&bytes));
            if let Some(mark) = mark(&bytes) {
                let output = output.clone();
                insn.register_execute_callback(move |_| at(mark, counters, &output));
            }
            qemu_plugin_register_vcpu_mem_inline_per_vcpu(
                insn,
                QEMU_PLUGIN_MEM_RW,
                QEMU_PLUGIN_INLINE_ADD_U64,
                counters.accesses.0,
                1,
            );
        }
        let add = |counter: Counter, n: u64| {
            qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
                tb.clone(),
                QEMU_PLUGIN_INLINE_ADD_U64,
                counter.0,
                n,
            );
        };
        add(counters.instructions, tb.size() as u64);
        if locked > 0 {
            add(counters.locked, locked);
        }
        Ok(())
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(|e| e.into_inner())
}

/// The guest executes a mark.
fn at(mark: Mark, counters: Counters, output: &Mutex<Output>) {
    let now = counters.get();
    let mut output = lock(output);
    if let Some(profile) = &output.profile {
        profile.counts.store(mark == Mark::Begin, Relaxed);
    }
    match mark {
        Mark::Begin => output.begin = now,
        Mark::End => {
            let [instructions, locked, accesses] =
                std::array::from_fn(|i| now[i] - output.begin[i]);
            writeln!(output.file, "{instructions} {locked} {accesses}")
                .unwrap_or_else(|e| panic!("raio-count: {e}"));
            if let Some(profile) = &output.profile {
                profile
                    .write()
                    .unwrap_or_else(|e| panic!("raio-count: {}: {e}", profile.path));
            }
        }
    }
}

qemu_plugin::register!(Count::default());
