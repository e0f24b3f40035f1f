//! What runs took, and a line of a table that holds it against the better one of the others.

use crate::support::table::{Series, Table, Unit};
use crate::support::tools::Run;

/// Columns of those who are compared.
pub const RESTIC: usize = 0;
pub const BORG: usize = 1;
pub const MAILTWIN: usize = 2;

pub const HEAD: [&str; 7] = ["work", "measured", "restic", "borg", "mailtwin", "mailtwin beside the better", "goal"];
const NAMES: [&str; 2] = ["restic", "borg"];

/// What the runs of one of them took.
#[derive(Default)]
pub struct Outlay {
    pub wall: Series,
    /// Until what it wrote is on the disk: with `sync -f`.
    pub durable: Series,
    /// With the run of `mailtwin sync` that has to come before.
    pub with_sync: Series,
    pub cpu: Series,
    pub peak: Series,
    /// Room on the disk: all of the repository, and what is there because something was kept.
    pub disk: Series,
    pub own: Series,
}

impl Outlay {
    pub fn push(&mut self, run: &Run) {
        self.wall.push(run.seconds());
        self.cpu.push(run.cpu);
        self.peak.push(run.peak as f64);
    }
}

/// Two lines about room on the disk.
pub fn lines_of_room(table: &mut Table, what: &str, trio: &Trio, goal: &str) {
    line(table, "", what, pick(trio, |outlay| &outlay.disk), Unit::Bytes, goal);
    let without = format!("{what}, without mailtwin's catalogue");
    line(table, "", &without, pick(trio, |outlay| &outlay.own), Unit::Bytes, "");
}

/// All of them on one kind of work.
pub type Trio = [Outlay; 3];

/// One kind of figure of each.
pub fn pick(trio: &Trio, what: fn(&Outlay) -> &Series) -> [&Series; 3] {
    [what(&trio[RESTIC]), what(&trio[BORG]), what(&trio[MAILTWIN])]
}

/// A line of a table with HEAD.
pub fn line(table: &mut Table, work: &str, measured: &str, series: [&Series; 3], unit: Unit, goal: &str) {
    let [restic, borg, mailtwin] = series.map(|series| series.cell(unit));
    let cells = [work, measured, &restic, &borg, &mailtwin, &beside(series, unit), goal];
    table.row(cells.map(str::to_owned).into());
}

/// mailtwin's median beside that of the better of the others.
fn beside(series: [&Series; 3], unit: Unit) -> String {
    let peers = NAMES.iter().zip(series).filter_map(|(name, series)| Some((name, series, series.median()?)));
    let Some((name, better, _)) = peers.min_by(|one, other| one.2.total_cmp(&other.2)) else {
        return "-".to_owned();
    };
    let ours = series[MAILTWIN];
    match (unit, ours.median() > better.median()) {
        // Nothing can be said of what was not measured, or was too short for its clock.
        _ if ours.median().is_none_or(|median| median <= 0.0) => "-".to_owned(),
        (Unit::Seconds, false) => format!("{} as fast as {name}", better.ratio(ours)),
        (Unit::Seconds, true) => format!("{} as long as {name}", ours.ratio(better)),
        (Unit::Bytes, _) => format!("{} of {name}", ours.ratio(better)),
    }
}
