//! Run-length encoded columns of a change, as Automerge writes them: a run is its length and the value, values that
//! occur once are written one after the other behind their negative number, nulls are a zero and their number.

/// A value of a column.
pub(super) trait Cell<'a>: PartialEq + Copy {
    fn write(self, out: &mut Vec<u8>);
    fn read(from: &mut Input<'a>) -> Option<Self>;
}

impl Cell<'_> for u64 {
    fn write(self, out: &mut Vec<u8>) {
        unsigned(out, self);
    }

    fn read(from: &mut Input<'_>) -> Option<Self> {
        from.unsigned()
    }
}

impl Cell<'_> for i64 {
    fn write(self, out: &mut Vec<u8>) {
        signed(out, self);
    }

    fn read(from: &mut Input<'_>) -> Option<Self> {
        from.signed()
    }
}

impl<'a> Cell<'a> for &'a str {
    fn write(self, out: &mut Vec<u8>) {
        unsigned(out, self.len() as u64);
        out.extend_from_slice(self.as_bytes());
    }

    fn read(from: &mut Input<'a>) -> Option<Self> {
        let len = from.unsigned()?;
        std::str::from_utf8(from.take(len)?).ok()
    }
}

pub(super) fn unsigned(out: &mut Vec<u8>, number: u64) {
    if number < 0x80 {
        out.push(number as u8);
    } else {
        // Writing to memory cannot fail.
        let _ = leb128::write::unsigned(out, number);
    }
}

pub(super) fn signed(out: &mut Vec<u8>, number: i64) {
    let _ = leb128::write::signed(out, number);
}

/// Writes a column.
pub(super) struct Column<T> {
    out: Vec<u8>,
    /// The last value, and how often it came in a row.
    last: Option<T>,
    repeats: u64,
    /// Values that occurred once, encoded.
    once: Vec<u8>,
    onces: i64,
    any: bool,
}

/// Room of a new column: most are shorter, and growing costs more than the room.
const COLUMN_BYTES: usize = 64;

impl<T> Default for Column<T> {
    fn default() -> Self {
        let room = || Vec::with_capacity(COLUMN_BYTES);
        Self { out: room(), last: None, repeats: 0, once: room(), onces: 0, any: false }
    }
}

impl<'a, T: Cell<'a>> Column<T> {
    pub(super) fn push(&mut self, value: Option<T>) {
        self.any |= value.is_some();
        if self.repeats > 0 && self.last == value {
            self.repeats += 1;
            return;
        }
        self.end_run();
        self.last = value;
        self.repeats = 1;
    }

    fn end_run(&mut self) {
        match (self.last, self.repeats) {
            (_, 0) => {}
            (Some(value), 1) => {
                value.write(&mut self.once);
                self.onces += 1;
            }
            (Some(value), repeats) => {
                self.end_onces();
                signed(&mut self.out, repeats.cast_signed());
                value.write(&mut self.out);
            }
            (None, repeats) => {
                self.end_onces();
                signed(&mut self.out, 0);
                unsigned(&mut self.out, repeats);
            }
        }
    }

    fn end_onces(&mut self) {
        if self.onces > 0 {
            signed(&mut self.out, -self.onces);
            self.out.append(&mut self.once);
            self.onces = 0;
        }
    }

    /// Returns the column; an empty one if nothing but nulls came.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_run();
        self.end_onces();
        if self.any { self.out } else { Vec::new() }
    }
}

/// Writes a column of numbers as their differences.
#[derive(Default)]
pub(super) struct Deltas {
    column: Column<i64>,
    last: i64,
}

impl Deltas {
    pub(super) fn push(&mut self, value: Option<i64>) {
        self.column.push(value.map(|value| value.wrapping_sub(std::mem::replace(&mut self.last, value))));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.column.finish()
    }
}

/// Writes a column of flags: the lengths of alternating runs, beginning with `false`.
#[derive(Default)]
pub(super) struct Flags {
    out: Vec<u8>,
    last: bool,
    repeats: u64,
}

impl Flags {
    pub(super) fn push(&mut self, flag: bool) {
        if flag != self.last {
            unsigned(&mut self.out, self.repeats);
            self.last = flag;
            self.repeats = 0;
        }
        self.repeats += 1;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.repeats > 0 {
            unsigned(&mut self.out, self.repeats);
        }
        self.out
    }
}

/// Bytes that are read from the front.
#[derive(Clone, Copy, Default)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = tail;
        Some(head)
    }

    pub(super) fn unsigned(&mut self) -> Option<u64> {
        match self.0.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => leb128::read::unsigned(&mut self.0).ok(),
        }
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        leb128::read::signed(&mut self.0).ok()
    }
}

/// Reads a column. Behind its end it is null.
pub(super) struct Cells<'a, T> {
    input: Input<'a>,
    value: Option<T>,
    repeats: u64,
    onces: u64,
}

impl<'a, T: Cell<'a>> Cells<'a, T> {
    pub(super) const fn new(input: Input<'a>) -> Self {
        Self { input, value: None, repeats: 0, onces: 0 }
    }

    /// Returns the next value, which may be null; `None` if the column is damaged.
    pub(super) fn next(&mut self) -> Option<Option<T>> {
        if self.repeats > 0 {
            self.repeats -= 1;
            return Some(self.value);
        }
        if self.onces > 0 {
            self.onces -= 1;
            return T::read(&mut self.input).map(Some);
        }
        if self.input.0.is_empty() {
            return Some(None);
        }
        match self.input.signed()? {
            0 => {
                self.value = None;
                self.repeats = self.input.unsigned()?;
            }
            run if run > 0 => {
                self.value = Some(T::read(&mut self.input)?);
                self.repeats = run.unsigned_abs();
            }
            literals => self.onces = literals.unsigned_abs(),
        }
        if self.repeats == 0 && self.onces == 0 {
            return None;
        }
        self.next()
    }
}

/// Reads a column of differences as numbers.
pub(super) struct Sums<'a> {
    cells: Cells<'a, i64>,
    last: i64,
}

impl<'a> Sums<'a> {
    pub(super) const fn new(input: Input<'a>) -> Self {
        Self { cells: Cells::new(input), last: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Option<i64>> {
        let Some(delta) = self.cells.next()? else { return Some(None) };
        self.last = self.last.checked_add(delta)?;
        Some(Some(self.last))
    }
}
