package byoc;

import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpMessage;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.multipart.DefaultHttpDataFactory;
import io.netty.handler.codec.http.multipart.FileUpload;
import io.netty.handler.codec.http.multipart.HttpPostRequestDecoder;
import io.netty.handler.codec.http.multipart.InterfaceHttpData;
import java.io.IOException;
import java.util.List;
import java.util.Locale;

/** Takes the one file out of a form, as requests.post(files=...) and curl -F send it, for a request of that file alone. */
final class Form {
    private static final String FORM = "multipart/form-data";

    private Form() {}

    static String mimeType(HttpMessage request) {
        CharSequence type = HttpUtil.getMimeType(request);
        return type == null ? "" : type.toString().trim().toLowerCase(Locale.ROOT);
    }

    static boolean isForm(String type) {
        return type.equals(FORM);
    }

    /** The request itself where it is no form, else one of its file alone; owns the one that it gets. */
    static FullHttpRequest unpacked(FullHttpRequest request) throws Refusal {
        if (!isForm(mimeType(request))) {
            return request;
        }
        try {
            return file(request);
        } finally {
            request.release();
        }
    }

    private static FullHttpRequest file(FullHttpRequest request) throws Refusal {
        HttpPostRequestDecoder decoder = null;
        try {
            decoder = new HttpPostRequestDecoder(new DefaultHttpDataFactory(false), request); // false: nothing on a disk
            List<InterfaceHttpData> parts = decoder.getBodyHttpDatas();
            if (parts.size() == 1 && parts.get(0) instanceof FileUpload) {
                FileUpload file = (FileUpload) parts.get(0);
                FullHttpRequest alone = request.replace(Unpooled.wrappedBuffer(file.get()));
                HttpUtil.setContentLength(alone, alone.content().readableBytes());
                alone.headers().set(HttpHeaderNames.CONTENT_TYPE, file.getContentType());
                return alone;
            }
        } catch (IOException | RuntimeException invalid) { // the decoder's errors for a body that is no form
        } finally {
            if (decoder != null) {
                decoder.destroy();
            }
        }
        throw new Refusal(400, "InvalidForm", "The form cannot be read: it has to hold one file, and nothing else.");
    }
}
