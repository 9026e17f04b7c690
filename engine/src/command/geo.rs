//! Geo commands: places as members of sorted sets, and searches around a place.

use smallvec::{SmallVec, smallvec};

use super::{Command, Ctx, Group, Keys, flag, zsets};
use crate::keyspace::{Ttl, WrongType};
use crate::number::{parse_f64, parse_i64};
use crate::resp::Reply;
use crate::types::geo::{Place, Polygon, Shape};
use crate::types::{Collection, ScoreBound, ZSet};

const READ: u32 = flag::READONLY;
const GROW: u32 = flag::WRITE | flag::DENYOOM;
const STORES: Keys = Keys::Custom(radius_keys);

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("geoadd", -5, GROW, Keys::FIRST, Group::Geo, "3.2.0", "Adds places or moves them.", geoadd),
    Command::new("geopos", -2, READ, Keys::FIRST, Group::Geo, "3.2.0", "Returns longitudes and latitudes.", geopos),
    Command::new("geohash", -2, READ, Keys::FIRST, Group::Geo, "3.2.0", "Returns places as geohash texts.", geohash),
    Command::new("geodist", -4, READ, Keys::FIRST, Group::Geo, "3.2.0", "Returns the distance between two places.", geodist),
    Command::new("georadius", -6, GROW | flag::MOVABLE_KEYS, STORES, Group::Geo, "3.2.0", "Finds places around coordinates (old form).", search),
    Command::new("georadius_ro", -6, READ, Keys::FIRST, Group::Geo, "3.2.10", "Finds places around coordinates, read-only (old form).", search),
    Command::new("georadiusbymember", -5, GROW | flag::MOVABLE_KEYS, STORES, Group::Geo, "3.2.0", "Finds places around a member (old form).", search),
    Command::new("georadiusbymember_ro", -5, READ, Keys::FIRST, Group::Geo, "3.2.10", "Finds places around a member, read-only (old form).", search),
    Command::new("geosearch", -7, READ, Keys::FIRST, Group::Geo, "6.2.0", "Finds places in a circle, box or polygon.", search),
    Command::new("geosearchstore", -8, GROW, Keys::TWO, Group::Geo, "6.2.0", "Stores the places in a circle, box or polygon.", search),
];

/// The set that is searched, and the one that STORE names last.
fn radius_keys(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    let options = if args[0].len() > "georadius".len() { 5 } else { 6 };
    let is_store =
        |arg: &[u8]| arg.eq_ignore_ascii_case(b"store") || arg.eq_ignore_ascii_case(b"storedist");
    let mut found: SmallVec<[usize; 8]> = smallvec![1];
    let at = (options..args.len().saturating_sub(1)).rev().find(|i| is_store(args[*i]));
    found.extend(at.map(|i| i + 1));
    found
}

const BAD_UNIT: &str = "ERR unsupported unit provided. please use M, KM, FT, MI";

/// Meters of a unit; the error is already replied when there is none.
fn unit(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<f64> {
    let meters = match ctx.args[i].to_ascii_lowercase().as_slice() {
        b"m" => 1.0,
        b"km" => 1000.0,
        b"ft" => 0.3048,
        b"mi" => 1609.34,
        _ => {
            ctx.reply.error(BAD_UNIT);
            return None;
        }
    };
    Some(meters)
}

fn place(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<Place> {
    let (longitude, latitude) = (ctx.float_arg(i)?, ctx.float_arg(i + 1)?);
    let place = Place::new(longitude, latitude);
    if place.is_none() {
        ctx.reply
            .error(&format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}"));
    }
    place
}

fn geoadd(ctx: &mut Ctx<'_, '_>) {
    let (mut only_new, mut only_there, mut count_changed, mut i) = (false, false, false, 2);
    while i < ctx.args.len() {
        match ctx.args[i].to_ascii_lowercase().as_slice() {
            b"nx" => only_new = true,
            b"xx" => only_there = true,
            b"ch" => count_changed = true,
            _ => break,
        }
        i += 1;
    }
    if !(ctx.args.len() - i).is_multiple_of(3) || (only_new && only_there) {
        return ctx.reply.syntax_error();
    }
    let mut scored: Vec<(&[u8], f64)> = Vec::with_capacity((ctx.args.len() - i) / 3);
    while i < ctx.args.len() {
        let Some(place) = place(ctx, i) else { return };
        scored.push((ctx.args[i + 2], place.score()));
        i += 3;
    }
    if scored.is_empty() {
        return ctx.reply.syntax_error();
    }
    zsets::add_scored(ctx, (only_new, only_there, count_changed), &scored);
}

/// The places of the members behind the key, as far as they are there.
fn places(ctx: &mut Ctx<'_, '_>, members: &[&[u8]]) -> Option<Vec<Option<Place>>> {
    match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => {
            ctx.reply.wrong_type();
            None
        }
        Ok(zset) => {
            let score = |member: &&[u8]| zset.and_then(|zset| zset.score(member));
            Some(members.iter().map(|member| score(member).map(Place::of_score)).collect())
        }
    }
}

fn reply_place(reply: &mut Reply, place: Place) {
    reply.array(2);
    for degrees in [place.longitude, place.latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        reply.double_text(text);
    }
}

fn reply_distance(reply: &mut Reply, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}

fn geopos(ctx: &mut Ctx<'_, '_>) {
    let Some(places) = places(ctx, &ctx.args[2..]) else { return };
    ctx.reply.array(places.len());
    for place in places {
        match place {
            Some(place) => reply_place(ctx.reply, place),
            None => ctx.reply.null_array(),
        }
    }
}

fn geohash(ctx: &mut Ctx<'_, '_>) {
    let Some(places) = places(ctx, &ctx.args[2..]) else { return };
    ctx.reply.array(places.len());
    for place in places {
        match place {
            Some(place) => ctx.reply.bulk(&place.geohash()),
            None => ctx.reply.null(),
        }
    }
}

fn geodist(ctx: &mut Ctx<'_, '_>) {
    let meters = match ctx.args.len() {
        4 => 1.0,
        5 => match unit(ctx, 4) {
            Some(meters) => meters,
            None => return,
        },
        _ => return ctx.reply.syntax_error(),
    };
    let Some(places) = places(ctx, &ctx.args[2..4]) else { return };
    match places[..] {
        [Some(a), Some(b)] => reply_distance(ctx.reply, a.distance(b) / meters),
        _ => ctx.reply.null(),
    }
}

/// What a search is to do.
struct Search<'a> {
    around: Option<Place>,
    /// In the unit of the request.
    shape: Option<Shape>,
    /// In place of a shape around somewhere.
    polygon: Option<Polygon>,
    meters: f64,
    with: [bool; 3],
    /// Nearest first, or last.
    order: Option<bool>,
    most: usize,
    any: bool,
    store: Option<&'a [u8]>,
    store_distance: bool,
}

/// A found place: member, score, distance in the unit of the request.
type Found = (Vec<u8>, f64, f64);

const DIST: usize = 0;
const HASH: usize = 1;
const COORD: usize = 2;

/// All commands that search.
fn search(ctx: &mut Ctx<'_, '_>) {
    let is_store = ctx.command.name == "geosearchstore";
    let source = ctx.args[if is_store { 2 } else { 1 }];
    let exists = match ctx.db.read::<ZSet>(source) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(zset) => zset.is_some(),
    };
    let Some(search) = Search::parse(ctx, source, exists) else { return };
    // Looked up again: that it is missing has been told.
    ctx.db.tells_misses = false;
    let found = match ctx.db.read::<ZSet>(source) {
        Ok(Some(zset)) => search.find(zset),
        _ => Vec::new(),
    };
    match search.store {
        Some(to) => store(ctx, to, &found, search.store_distance),
        None => search.reply(ctx.reply, &found),
    }
}

impl<'a> Search<'a> {
    fn parse(ctx: &mut Ctx<'a, '_>, source: &[u8], exists: bool) -> Option<Search<'a>> {
        let name = ctx.command.name;
        let (new_form, read_only) = (name.starts_with("geosearch"), name.ends_with("_ro"));
        let mut search = Search {
            around: None,
            shape: None,
            polygon: None,
            meters: 1.0,
            with: [false; 3],
            order: None,
            most: 0,
            any: false,
            store: (name == "geosearchstore").then(|| ctx.args[1]),
            store_distance: false,
        };
        let mut i = match name {
            "geosearch" => 2,
            "geosearchstore" => 3,
            _ if name.starts_with("georadiusbymember") => {
                if exists {
                    search.around = Some(member(ctx, source, 2)?);
                    search.circle(ctx, 3)?;
                }
                5
            }
            _ => {
                search.around = Some(place(ctx, 2)?);
                search.circle(ctx, 4)?;
                6
            }
        };
        // Where and what, as the new form has them said; a member of a set that is not there is nowhere.
        let (mut from_member, mut from_place, mut circle, mut square) =
            (false, false, false, false);
        while i < ctx.args.len() {
            let more = ctx.args.len() - 1 - i;
            match ctx.args[i].to_ascii_lowercase().as_slice() {
                b"withdist" => search.with[DIST] = true,
                b"withhash" => search.with[HASH] = true,
                b"withcoord" => search.with[COORD] = true,
                b"any" => search.any = true,
                b"asc" => search.order = Some(true),
                b"desc" => search.order = Some(false),
                b"count" if more >= 1 => {
                    let count = ctx.int_arg(i + 1)?;
                    if count <= 0 {
                        ctx.reply.error("ERR COUNT must be > 0");
                        return None;
                    }
                    search.most = count as usize;
                    i += 1;
                }
                word @ (b"store" | b"storedist") if !new_form && !read_only && more >= 1 => {
                    search.store = Some(ctx.args[i + 1]);
                    search.store_distance = word == b"storedist";
                    i += 1;
                }
                b"bypolygon" if new_form && more >= 1 && !circle && !square => {
                    i += search.corners(ctx, i + 1)?;
                }
                b"frommember" if new_form && more >= 1 && !from_place => {
                    if exists {
                        search.around = Some(member(ctx, source, i + 1)?);
                    }
                    from_member = true;
                    i += 1;
                }
                b"fromlonlat" if new_form && more >= 2 && !from_member => {
                    search.around = Some(place(ctx, i + 1)?);
                    from_place = true;
                    i += 2;
                }
                b"byradius" if new_form && more >= 2 && !square => {
                    search.circle(ctx, i + 1)?;
                    circle = true;
                    i += 2;
                }
                b"bybox" if new_form && more >= 3 && !circle => {
                    search.square(ctx, i + 1)?;
                    square = true;
                    i += 3;
                }
                b"storedist" if name == "geosearchstore" => search.store_distance = true,
                _ => {
                    ctx.reply.syntax_error();
                    return None;
                }
            }
            i += 1;
        }
        let polygon = search.polygon.is_some();
        if polygon && (from_member || from_place || circle || square) {
            ctx.reply.syntax_error();
            return None;
        }
        // As the client wrote it.
        let called = super::exec::printable(ctx.args[0]);
        let refused = if search.store.is_some() && search.with.contains(&true) {
            let what = if new_form { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            format!("ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")
        } else if new_form && !(polygon || from_member || from_place) {
            format!("ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {called}")
        } else if new_form && !(polygon || circle || square) {
            format!("ERR exactly one of BYRADIUS and BYBOX can be specified for {called}")
        } else if search.any && search.most == 0 {
            "ERR the ANY argument requires COUNT argument".into()
        } else {
            // The nearest are wanted where not all are, and any will not do.
            if search.most > 0 && !search.any {
                search.order = search.order.or(Some(true));
            }
            return Some(search);
        };
        ctx.reply.error(&refused);
        None
    }

    /// `radius unit` at an argument.
    fn circle(&mut self, ctx: &mut Ctx<'_, '_>, i: usize) -> Option<()> {
        let radius = distance(ctx, i, "radius")?;
        if radius < 0.0 {
            ctx.reply.error("ERR radius cannot be negative");
            return None;
        }
        self.meters = unit(ctx, i + 1)?;
        self.shape = Some(Shape::Circle(radius * self.meters));
        Some(())
    }

    /// `width height unit` at an argument.
    fn square(&mut self, ctx: &mut Ctx<'_, '_>, i: usize) -> Option<()> {
        let (width, height) = (distance(ctx, i, "width")?, distance(ctx, i + 1, "height")?);
        if width < 0.0 || height < 0.0 {
            ctx.reply.error("ERR height or width cannot be negative");
            return None;
        }
        self.meters = unit(ctx, i + 2)?;
        self.shape = Some(Shape::Box(width * self.meters, height * self.meters));
        Some(())
    }

    /// `count longitude latitude ...` at an argument: how many arguments that were.
    fn corners(&mut self, ctx: &mut Ctx<'_, '_>, i: usize) -> Option<usize> {
        let Some(count) = parse_i64(ctx.args[i]).and_then(|n| i32::try_from(n).ok()) else {
            ctx.reply.error("ERR invalid number of vertices");
            return None;
        };
        let count = usize::try_from(count).unwrap_or(0);
        if count < 3 || (ctx.args.len() - i - 1) / 2 < count {
            ctx.reply.error("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices");
            return None;
        }
        let corners = (0..count).map(|n| place(ctx, i + 1 + 2 * n)).collect::<Option<_>>()?;
        self.polygon = Polygon::new(corners);
        Some(1 + 2 * count)
    }

    fn find(&self, zset: &ZSet) -> Vec<Found> {
        if let Some(polygon) = &self.polygon {
            let middle = polygon.middle();
            let meters = |place| polygon.contains(place).then(|| middle.distance(place));
            return self.collect(zset, &polygon.ranges(), meters);
        }
        let (Some(around), Some(shape)) = (self.around, self.shape) else { return Vec::new() };
        self.collect(zset, &around.ranges(shape), |place| around.distance_within(shape, place))
    }

    /// The places in some ranges of scores that `meters` has a distance for.
    fn collect(
        &self,
        zset: &ZSet,
        ranges: &[(f64, f64)],
        meters: impl Fn(Place) -> Option<f64>,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let enough = if self.any { self.most } else { usize::MAX };
        for &(low, high) in ranges {
            let ranks = zset.rank_range_by_score(
                ScoreBound { value: low, exclusive: false },
                ScoreBound { value: high, exclusive: true },
            );
            for (member, score) in zset.iter_ranks(ranks) {
                if found.len() >= enough {
                    break;
                }
                if let Some(meters) = meters(Place::of_score(score)) {
                    found.push((member.to_vec(), score, meters / self.meters));
                }
            }
        }
        if let Some(nearest_first) = self.order {
            found.sort_by(|a, b| zsets::compare_scores(a.2, b.2));
            if !nearest_first {
                found.reverse();
            }
        }
        if self.most > 0 {
            found.truncate(self.most);
        }
        found
    }

    fn reply(&self, reply: &mut Reply, found: &[Found]) {
        let parts = self.with.iter().filter(|with| **with).count();
        reply.array(found.len());
        for (member, score, distance) in found {
            if parts > 0 {
                reply.array(parts + 1);
            }
            reply.bulk(member);
            if self.with[DIST] {
                reply_distance(reply, *distance);
            }
            if self.with[HASH] {
                reply.int(*score as i64);
            }
            if self.with[COORD] {
                reply_place(reply, Place::of_score(*score));
            }
        }
    }
}

/// A length; the error is already replied when it is none.
fn distance(ctx: &mut Ctx<'_, '_>, i: usize, what: &str) -> Option<f64> {
    let found = parse_f64(ctx.args[i]).filter(|n| !n.is_nan());
    if found.is_none() {
        ctx.reply.error(&format!("ERR need numeric {what}"));
    }
    found
}

/// Where a member of the searched set is.
fn member(ctx: &mut Ctx<'_, '_>, source: &[u8], i: usize) -> Option<Place> {
    let zset = ctx.db.read::<ZSet>(source).ok().flatten();
    let score = zset.and_then(|zset| zset.score(ctx.args[i]));
    if score.is_none() {
        ctx.reply.error("ERR could not decode requested zset member");
    }
    score.map(Place::of_score)
}

fn store(ctx: &mut Ctx<'_, '_>, to: &[u8], found: &[Found], by_distance: bool) {
    if !found.is_empty() {
        let score = |(_, score, distance): &Found| if by_distance { *distance } else { *score };
        let pairs = found.iter().map(|f| (f.0.clone(), score(f))).collect();
        let limits = ctx.db.env.limits;
        let zset = ZSet::from_pairs(pairs, &limits).unwrap_or_default();
        ctx.db.set_collection(to, Collection::ZSet(zset), Ttl::Clear);
        ctx.modified(to);
    } else if ctx.db.remove(to) {
        ctx.modified(to);
    }
    ctx.reply.int(found.len() as i64);
}
