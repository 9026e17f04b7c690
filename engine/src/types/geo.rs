//! Places on the earth as scores of a sorted set: 26 bits of longitude and of latitude, interleaved.
//!
//! Cells of one size halve at each step, and neighbours in a cell are neighbours in the order of scores, so that a search is
//! nine ranges of scores at most. Ranges, radius and formulas are those of the ecosystem, so that distances read the same.

/// Degrees that a place may have; the map's projection ends there.
pub const LATITUDE_MAX: f64 = 85.051_128_78;
/// Degrees to the east and to the west.
pub const LONGITUDE_MAX: f64 = 180.0;
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
/// Half of the projected earth's circumference, meters.
const MERCATOR_MAX_M: f64 = 20_037_726.37;
const STEPS_MAX: u32 = 26;

/// A place in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// To the east.
    pub longitude: f64,
    /// To the north.
    pub latitude: f64,
}

/// What is searched, around a place; meters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Within a distance.
    Circle(f64),
    /// Within a box of this width and height.
    Box(f64, f64),
}

/// An area within straight lines on the map, from corner to corner and back to the first.
#[derive(Clone, Debug)]
pub struct Polygon(Vec<Place>);

/// A cell of the grid of `2^steps` columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    column: u64,
    row: u64,
    steps: u32,
}

/// West, south, east and north of an area, degrees.
#[derive(Clone, Copy)]
struct Bounds {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

fn spread(n: u64) -> u64 {
    let mut x = n & 0xffff_ffff;
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        x = (x | x << shift) & mask;
    }
    x
}

fn gather(n: u64) -> u64 {
    let mut x = n & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        x = (x | x >> shift) & mask;
    }
    x
}

impl Place {
    /// A place on the map.
    pub fn new(longitude: f64, latitude: f64) -> Option<Place> {
        let fits = longitude.abs() <= LONGITUDE_MAX && latitude.abs() <= LATITUDE_MAX;
        fits.then_some(Place { longitude, latitude })
    }

    fn cell(self, steps: u32, latitude_max: f64) -> Cell {
        let cells = (1u64 << steps) as f64;
        let share = |at: f64, max: f64| ((at + max) / (max * 2.0) * cells) as u64;
        Cell {
            column: share(self.longitude, LONGITUDE_MAX),
            row: share(self.latitude, latitude_max),
            steps,
        }
    }

    /// The score that stands for a place.
    pub fn score(self) -> f64 {
        self.cell(STEPS_MAX, LATITUDE_MAX).bits() as f64
    }

    /// The middle of the smallest cell that a score stands for.
    pub fn of_score(score: f64) -> Place {
        let bits = score as u64;
        let cell = Cell { column: gather(bits >> 1), row: gather(bits), steps: STEPS_MAX };
        let area = cell.area();
        Place {
            longitude: ((area.west + area.east) / 2.0).clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
            latitude: ((area.south + area.north) / 2.0).clamp(-LATITUDE_MAX, LATITUDE_MAX),
        }
    }

    /// The text of eleven letters that other systems know, whose map reaches to the poles.
    pub fn geohash(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = self.cell(STEPS_MAX, 90.0).bits();
        // Fifty-two bits are ten letters and two bits, which are left out.
        std::array::from_fn(|i| match i {
            10 => LETTERS[0],
            _ => LETTERS[(bits >> (52 - (i + 1) * 5) & 0x1f) as usize],
        })
    }

    /// Meters between two places, along the surface of a ball.
    pub fn distance(self, other: Place) -> f64 {
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return self.latitude_distance(other);
        }
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let u = ((b - a) / 2.0).sin();
        2.0 * EARTH_RADIUS_M * (u * u + a.cos() * b.cos() * v * v).sqrt().asin()
    }

    fn latitude_distance(self, other: Place) -> f64 {
        EARTH_RADIUS_M * (other.latitude.to_radians() - self.latitude.to_radians()).abs()
    }

    /// Meters to a place within the shape around this one.
    pub fn distance_within(self, shape: Shape, other: Place) -> Option<f64> {
        match shape {
            Shape::Circle(radius) => {
                Some(self.distance(other)).filter(|distance| *distance <= radius)
            }
            Shape::Box(width, height) => {
                let beside = Place { longitude: self.longitude, latitude: other.latitude };
                let fits = other.latitude_distance(self) <= height / 2.0
                    && other.distance(beside) <= width / 2.0;
                fits.then(|| self.distance(other))
            }
        }
    }

    fn bounds(self, shape: Shape) -> Bounds {
        let (width, height) = match shape {
            Shape::Circle(radius) => (radius, radius),
            Shape::Box(width, height) => (width / 2.0, height / 2.0),
        };
        let up = (height / EARTH_RADIUS_M).to_degrees();
        // A degree of longitude is shortest on the side of the pole.
        let far = if self.latitude < 0.0 { self.latitude - up } else { self.latitude + up };
        let aside = (width / EARTH_RADIUS_M / far.to_radians().cos()).to_degrees();
        Bounds {
            west: self.longitude - aside,
            south: self.latitude - up,
            east: self.longitude + aside,
            north: self.latitude + up,
        }
    }

    /// Ranges of scores, the end left out, in which all places of the shape around this one lie.
    pub fn ranges(self, shape: Shape) -> Vec<(f64, f64)> {
        let bounds = self.bounds(shape);
        let reach = match shape {
            Shape::Circle(radius) => radius,
            Shape::Box(width, height) => ((width / 2.0).powi(2) + (height / 2.0).powi(2)).sqrt(),
        };
        let mut steps = steps_for(reach, self.latitude);
        let mut middle = self.cell(steps, LATITUDE_MAX);
        let covers = |middle: Cell| {
            middle.beside(0, 1).area().north >= bounds.north
                && middle.beside(0, -1).area().south <= bounds.south
                && middle.beside(1, 0).area().east >= bounds.east
                && middle.beside(-1, 0).area().west <= bounds.west
        };
        if steps > 1 && !covers(middle) {
            steps -= 1;
            middle = self.cell(steps, LATITUDE_MAX);
        }
        let area = middle.area();
        let needed = |column: i64, row: i64| {
            steps < 2
                || !(row < 0 && area.south < bounds.south
                    || row > 0 && area.north > bounds.north
                    || column < 0 && area.west < bounds.west
                    || column > 0 && area.east > bounds.east)
        };
        const AROUND: [(i64, i64); 9] =
            [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let mut found: Vec<Cell> = Vec::with_capacity(9);
        for (column, row) in AROUND {
            let cell = middle.beside(column, row);
            // Where cells are huge, one is on both sides of another.
            if needed(column, row) && !found.contains(&cell) {
                found.push(cell);
            }
        }
        let shift = 2 * (STEPS_MAX - steps);
        let range = |cell: Cell| {
            let bits = cell.bits();
            ((bits << shift) as f64, ((bits + 1) << shift) as f64)
        };
        found.into_iter().map(range).collect()
    }
}

impl Polygon {
    /// As many cells as a search may walk through.
    const CELLS_MAX: u64 = 16;

    /// An area with three corners at least.
    pub fn new(corners: Vec<Place>) -> Option<Polygon> {
        (corners.len() >= 3).then_some(Polygon(corners))
    }

    /// Where distances are measured from: below the middle of the corners, seen as points of a ball.
    pub fn middle(&self) -> Place {
        let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
        for corner in &self.0 {
            let (a, b) = (corner.latitude.to_radians(), corner.longitude.to_radians());
            x += a.cos() * b.cos();
            y += a.cos() * b.sin();
            z += a.sin();
        }
        Place {
            longitude: f64::atan2(y, x).to_degrees(),
            latitude: f64::atan2(z, x.hypot(y)).to_degrees(),
        }
    }

    /// A line from a place to the east meets the border an odd number of times.
    pub fn contains(&self, place: Place) -> bool {
        let corners = &self.0;
        let mut before = corners.last().copied().unwrap_or(place);
        let mut inside = false;
        for corner in corners {
            let crosses = (corner.latitude > place.latitude) != (before.latitude > place.latitude);
            let slope = (before.longitude - corner.longitude) / (before.latitude - corner.latitude);
            if crosses
                && place.longitude < corner.longitude + slope * (place.latitude - corner.latitude)
            {
                inside = !inside;
            }
            before = *corner;
        }
        inside
    }

    /// Ranges of scores, the end left out, in which all places of the area lie.
    pub fn ranges(&self) -> Vec<(f64, f64)> {
        let fold = |pick: fn(&Place) -> f64, fold: fn(f64, f64) -> f64| {
            self.0.iter().map(pick).reduce(fold).unwrap_or_default()
        };
        let west_south = Place {
            longitude: fold(|p| p.longitude, f64::min),
            latitude: fold(|p| p.latitude, f64::min),
        };
        let east_north = Place {
            longitude: fold(|p| p.longitude, f64::max),
            latitude: fold(|p| p.latitude, f64::max),
        };
        let mut steps = STEPS_MAX;
        loop {
            // The edge of the map belongs to the last cell.
            let last = (1u64 << steps) - 1;
            let [low, high] = [west_south, east_north].map(|place| {
                let cell = place.cell(steps, LATITUDE_MAX);
                (cell.column.min(last), cell.row.min(last))
            });
            if (high.0 - low.0 + 1) * (high.1 - low.1 + 1) <= Self::CELLS_MAX {
                let shift = 2 * (STEPS_MAX - steps);
                let columns = low.0..=high.0;
                let cells = columns.flat_map(|column| {
                    (low.1..=high.1).map(move |row| Cell { column, row, steps }.bits())
                });
                return cells
                    .map(|bits| ((bits << shift) as f64, ((bits + 1) << shift) as f64))
                    .collect();
            }
            steps -= 1;
        }
    }
}

/// How small cells may be for nine of them to cover a circle.
fn steps_for(reach: f64, latitude: f64) -> u32 {
    if reach == 0.0 {
        return STEPS_MAX;
    }
    let (mut steps, mut reach) = (1i32, reach);
    while reach < MERCATOR_MAX_M {
        reach *= 2.0;
        steps += 1;
    }
    // So that the circle is within the cells nearly always.
    steps -= 2;
    // Towards the poles cells are narrower than they are high.
    steps -= i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
    steps.clamp(1, STEPS_MAX as i32) as u32
}

impl Cell {
    fn bits(self) -> u64 {
        spread(self.row) | spread(self.column) << 1
    }

    fn area(self) -> Bounds {
        let cells = (1u64 << self.steps) as f64;
        let at = |index: u64, max: f64| -max + index as f64 / cells * (max * 2.0);
        Bounds {
            west: at(self.column, LONGITUDE_MAX),
            south: at(self.row, LATITUDE_MAX),
            east: at(self.column + 1, LONGITUDE_MAX),
            north: at(self.row + 1, LATITUDE_MAX),
        }
    }

    /// A neighbour; what is beyond one edge of the map is at the other.
    fn beside(self, columns: i64, rows: i64) -> Cell {
        let mask = (1u64 << self.steps) - 1;
        Cell {
            column: self.column.wrapping_add_signed(columns) & mask,
            row: self.row.wrapping_add_signed(rows) & mask,
            steps: self.steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scores_texts_and_distances_are_those_of_the_ecosystem() {
        let palermo = Place::new(13.361389, 38.115556).unwrap();
        let catania = Place::new(15.087269, 37.502669).unwrap();
        assert_eq!(palermo.score(), 3_479_099_956_230_698.0);
        assert_eq!(catania.score(), 3_479_447_370_796_909.0);
        let (a, b) = (Place::of_score(palermo.score()), Place::of_score(catania.score()));
        assert_eq!(format!("{:.4}", a.distance(b)), "166274.1516");
        assert_eq!(&a.geohash(), b"sqc8b49rny0");
        assert!(Place::new(181.0, 0.0).is_none() && Place::new(0.0, 86.0).is_none());
        assert!(Place::new(f64::NAN, 0.0).is_none());
    }

    #[test]
    fn a_polygon_is_what_a_line_to_the_east_says() {
        let place = |(longitude, latitude)| Place { longitude, latitude };
        let polygon = |corners: &[(f64, f64)]| {
            Polygon::new(corners.iter().copied().map(place).collect()).unwrap()
        };
        let square = polygon(&[(12.0, 36.0), (16.0, 36.0), (16.0, 39.0), (12.0, 39.0)]);
        assert!(square.contains(place((14.0, 37.0))) && !square.contains(place((2.35, 48.85))));
        let crossed = polygon(&[(12.0, 36.0), (16.0, 39.0), (16.0, 36.0), (12.0, 39.0)]);
        assert!(crossed.contains(place((15.0, 37.5))) && !crossed.contains(place((14.0, 37.0))));
        // As Valkey 9.1 measures it.
        let mid = Place::of_score(place((14.0, 37.0)).score());
        assert_eq!(format!("{:.4}", square.middle().distance(mid)), "57488.7673");
        let line = polygon(&[(12.0, 36.0), (12.0, 36.0), (12.0, 36.0)]);
        assert!(!line.contains(place((12.0, 36.0))));
        assert!(Polygon::new(vec![mid, mid]).is_none());
    }

    proptest! {
        #[test]
        fn what_a_polygon_contains_is_in_one_of_its_ranges(
            corners in prop::collection::vec((-180.0..=180.0f64, -85.0..=85.0f64), 3..8),
            at in (-180.0..180.0f64, -85.0..85.0f64),
            shrink in 0.0001..1.0f64,
        ) {
            let near = |(x, y): (f64, f64)| {
                Place { longitude: at.0 + (x - at.0) * shrink, latitude: at.1 + (y - at.1) * shrink }
            };
            let polygon = Polygon::new(corners.into_iter().map(near).collect()).unwrap();
            let place = Place::of_score(near(at).score());
            let ranges = polygon.ranges();
            prop_assert!(ranges.len() as u64 <= Polygon::CELLS_MAX);
            let in_range = ranges.iter().any(|(low, high)| (*low..*high).contains(&place.score()));
            prop_assert!(in_range || !polygon.contains(place));
        }

        #[test]
        fn what_is_within_is_in_one_of_the_ranges(
            from in (-180.0..180.0f64, -80.0..80.0f64),
            to in (-0.05..0.05f64, -0.05..0.05f64),
            scale in 0.01..40.0f64,
            is_box: bool,
        ) {
            let from = Place { longitude: from.0, latitude: from.1 };
            let (x, y) = (from.longitude + to.0 * scale, from.latitude + to.1 * scale);
            let Some(to) = Place::new(x, y) else { return Ok(()) };
            let to = Place::of_score(to.score());
            let reach = from.distance(to) * 1.001 + 1.0;
            let shape = if is_box { Shape::Box(reach * 2.0, reach * 2.0) } else { Shape::Circle(reach) };
            prop_assert!(from.distance_within(shape, to).is_some());
            let score = to.score();
            prop_assert!(from.ranges(shape).iter().any(|(low, high)| (*low..*high).contains(&score)));
        }
    }
}
