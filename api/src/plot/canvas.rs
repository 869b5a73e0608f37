//! Where plotters draws pixels: paths with smooth edges by tiny-skia, letters as the outlines of DejaVu Sans, which the binary brings
//! along and which has most alphabets.

use std::convert::Infallible;

use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontTransform,
};
use tiny_skia::{FillRule, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform};
use ttf_parser::{Face, OutlineBuilder};

/// Pixels for each of the drawing, in both directions: sharp on paper, and on screens with small pixels.
pub const SCALE: u32 = 2;

/// Size of the square of a letter, relative to that of a font as plotters counts it.
const EM: f64 = 1.0 / 1.24;

/// A picture that is drawn on.
pub struct Canvas {
    pixmap: Pixmap,
    face: Face<'static>,
}

impl Canvas {
    /// A white one of so many pixels of the drawing.
    ///
    /// # Errors
    /// In words, when it has no pixel, or too many.
    pub fn new(width: u32, height: u32) -> Result<Self, String> {
        let face = Face::parse(dejavu::sans::regular(), 0).map_err(|error| error.to_string())?;
        let mut pixmap = Pixmap::new(SCALE * width, SCALE * height).ok_or("no picture is that large, or that small")?;
        pixmap.fill(tiny_skia::Color::WHITE);
        Ok(Self { pixmap, face })
    }

    /// What was drawn: red, green and blue of each pixel, row by row, with the width and the height.
    pub fn pixels(&self) -> (u32, u32, Vec<u8>) {
        // On white paper nothing is transparent.
        let pixels = self.pixmap.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
        (self.pixmap.width(), self.pixmap.height(), pixels)
    }

    fn fill(&mut self, path: Option<Path>, color: BackendColor, place: Transform) {
        if let Some(path) = path {
            self.pixmap.fill_path(&path, &paint(color), FillRule::Winding, place, None);
        }
    }

    fn stroke<S: BackendStyle>(&mut self, path: Option<Path>, style: &S) {
        let stroke = Stroke { width: style.stroke_width() as f32, line_join: LineJoin::Round, ..Stroke::default() };
        if let Some(path) = path {
            self.pixmap.stroke_path(&path, &paint(style.color()), &stroke, scaled(), None);
        }
    }
}

fn scaled() -> Transform {
    Transform::from_scale(SCALE as f32, SCALE as f32)
}

fn paint(color: BackendColor) -> Paint<'static> {
    let mut paint = Paint::default();
    let (red, green, blue) = color.rgb;
    paint.set_color_rgba8(red, green, blue, (color.alpha * 255.0).round() as u8);
    paint
}

fn lines(points: impl IntoIterator<Item = BackendCoord>) -> PathBuilder {
    let mut path = PathBuilder::new();
    for (x, y) in points {
        let (x, y) = (x as f32, y as f32);
        if path.is_empty() { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    path
}

/// Letters one after the other, on a line from the origin to the right.
struct Letters {
    path: PathBuilder,
    /// Where the next one begins, and the size of a unit of the font.
    at: f32,
    unit: f32,
}

impl OutlineBuilder for Letters {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(self.at + self.unit * x, -self.unit * y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(self.at + self.unit * x, -self.unit * y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let (at, unit) = (self.at, self.unit);
        self.path.quad_to(at + unit * x1, -unit * y1, at + unit * x, -unit * y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let (at, unit) = (self.at, self.unit);
        self.path.cubic_to(at + unit * x1, -unit * y1, at + unit * x2, -unit * y2, at + unit * x, -unit * y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl DrawingBackend for Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.pixmap.width() / SCALE, self.pixmap.height() / SCALE)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        let square = Rect::from_xywh(x as f32, y as f32, 1.0, 1.0);
        self.fill(square.map(PathBuilder::from_rect), color, scaled());
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        is_filled: bool,
    ) -> Drawn {
        let rect = Rect::from_ltrb(left as f32, top as f32, right as f32, bottom as f32).map(PathBuilder::from_rect);
        if is_filled {
            self.fill(rect, style.color(), scaled());
        } else {
            self.stroke(rect, style);
        }
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, points: I, style: &S) -> Drawn {
        self.stroke(lines(points).finish(), style);
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, points: I, style: &S) -> Drawn {
        let mut path = lines(points);
        path.close();
        self.fill(path.finish(), style.color(), scaled());
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): BackendCoord) -> Drawn {
        let em = (style.size() * EM) as f32;
        let mut letters = Letters { path: PathBuilder::new(), at: 0.0, unit: em / f32::from(self.face.units_per_em()) };
        for letter in text.chars() {
            // A letter that the font lacks is shown as its box.
            let glyph = self.face.glyph_index(letter).unwrap_or_default();
            self.face.outline_glyph(glyph, &mut letters);
            letters.at += letters.unit * f32::from(self.face.glyph_hor_advance(glyph).unwrap_or_default());
        }
        let anchor = style.anchor();
        let across = match anchor.h_pos {
            HPos::Left => 0.0,
            HPos::Center => -letters.at / 2.0,
            HPos::Right => -letters.at,
        };
        // As plotters has it in SVG.
        let down = match anchor.v_pos {
            VPos::Top => 0.76 * em,
            VPos::Center => 0.27 * em,
            VPos::Bottom => -0.27 * em,
        };
        let turned = match style.transform() {
            FontTransform::None => 0.0,
            FontTransform::Rotate90 => 90.0,
            FontTransform::Rotate180 => 180.0,
            FontTransform::Rotate270 => 270.0,
        };
        let place = scaled().pre_translate(x as f32, y as f32).pre_rotate(turned).pre_translate(across, down);
        self.fill(letters.path.finish(), style.color(), place);
        Ok(())
    }
}
