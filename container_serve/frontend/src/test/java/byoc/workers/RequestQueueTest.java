package byoc.workers;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.DefaultHttpHeaders;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaders;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class RequestQueueTest {
    private static final long SECOND = 1_000_000_000L;
    private static final long MEGABYTE = 1 << 20;

    private final List<Integer> failures = new ArrayList<>();
    private final PendingRequest.Caller caller = new PendingRequest.Caller() {
        @Override
        public void answer(FullHttpResponse response) {}

        @Override
        public void fail(int status, String message) {
            failures.add(status);
        }
    };

    private final Memory memory = new Memory(100 * MEGABYTE, MEGABYTE);
    private final RequestQueue queue = new RequestQueue(3, 1, memory);

    private static HttpHeaders headers(String type) {
        return new DefaultHttpHeaders().set("Content-Type", type);
    }

    private PendingRequest request(double seconds, int bytes) {
        ByteBuf body = Unpooled.buffer(bytes).writeZero(bytes);
        return new PendingRequest(headers("image/jpeg"), body, System.nanoTime() + (long) (seconds * SECOND), caller);
    }

    private PendingRequest offered(double seconds) {
        PendingRequest request = request(seconds, 1);
        assertTrue(queue.offer(request));
        return request;
    }

    /** The request of a worker that becomes free now: nothing, where there is nothing for it. */
    private static List<PendingRequest> taken(RequestQueue queue) {
        List<PendingRequest> taken = new ArrayList<>();
        RequestQueue.Worker worker = taken::addAll;
        queue.free(worker);
        queue.leave(worker);
        return taken;
    }

    @Test
    void placesAreTakenAndGivenBackOnce() {
        PendingRequest first = offered(10);
        PendingRequest second = offered(10);
        assertEquals(List.of(first), taken(queue));
        offered(10);
        assertFalse(queue.offer(request(10, 1)), "one is with a worker, two wait");
        queue.remove(second);
        queue.remove(second);
        queue.done(first, SECOND);
        offered(10);
        assertEquals(2, queue.queued());
        queue.close();
        assertEquals(0, queue.queued());
        assertFalse(queue.offer(request(10, 1)), "its model has gone");
    }

    @Test
    void aRequestWhoseCallerIsGoneIsNotComputed() {
        PendingRequest gone = offered(10);
        PendingRequest next = offered(10);
        queue.remove(gone);
        assertEquals(List.of(next), taken(queue));
        assertFalse(gone.taken);
        assertTrue(next.taken);
    }

    @Test
    void theWorkerThatWasBusyLastGetsTheNextRequest() {
        List<PendingRequest> first = new ArrayList<>();
        List<PendingRequest> second = new ArrayList<>();
        RequestQueue.Worker worker = first::addAll;
        queue.free(worker);
        queue.free(second::addAll);
        PendingRequest one = offered(10);
        assertEquals(List.of(one), second);
        queue.leave(worker); // it has died
        PendingRequest other = offered(10);
        assertEquals(List.of(), first);
        assertFalse(other.taken);
    }

    @Test
    void theOldestThatCanBeAnsweredInTimeComesFirstElseTheYoungest() {
        PendingRequest measured = offered(10);
        assertEquals(List.of(measured), taken(queue));
        queue.done(measured, SECOND); // so long does one take
        PendingRequest late = offered(0.5);
        PendingRequest inTime = offered(5);
        assertEquals(List.of(inTime), taken(queue));
        PendingRequest youngest = offered(1);
        assertEquals(List.of(youngest), taken(queue));
        queue.done(youngest, 0);
        assertEquals(List.of(late), taken(queue));
    }

    @Test
    void aBodyWaitsUntilThereIsMemoryForItsCopies() {
        RequestQueue another = new RequestQueue(3, 1, memory); // another model's
        PendingRequest large = request(60, (int) MEGABYTE); // larger than the share: it goes alone
        PendingRequest other = request(60, 10_000);
        PendingRequest third = request(60, 10_000);
        queue.offer(large);
        queue.offer(other);
        another.offer(third);
        assertEquals(List.of(large), taken(queue));
        List<PendingRequest> next = new ArrayList<>();
        queue.free(next::addAll);
        another.free(next::addAll);
        assertEquals(List.of(), next);
        assertFalse(other.taken);
        queue.done(large, SECOND);
        assertEquals(Set.of(other, third), Set.copyOf(next));
    }

    @Test
    void whoeverWaitsForAModelThatGoesIsTold() {
        RequestQueue shared = new RequestQueue(20, 2, memory);
        for (int i = 0; i < 3; i++) {
            shared.offer(request(60, 1));
        }
        List<PendingRequest> batch = taken(shared);
        shared.close();
        assertEquals(List.of(503), failures);
        shared.died(batch); // its worker ends at the same time
        assertEquals(List.of(503, 503, 503), failures);
    }

    @Test
    void aRequestIsWrittenAsTheWorkersReadItAndItsBodyIsGivenUp() {
        ByteBuf body = Unpooled.wrappedBuffer(Unpooled.buffer().writeByte(1), Unpooled.buffer().writeByte(2));
        PendingRequest request = new PendingRequest(headers("image/png"), body, 0, caller);
        ByteBuf out = Unpooled.wrappedBuffer(PendingRequest.encode(List.of(request), Unpooled.buffer().alloc()).toArray(new ByteBuf[0]));
        assertEquals('I', out.readByte());
        text(out); // its number
        assertEquals("Content-Type", text(out));
        assertEquals("image/png", text(out));
        assertEquals(-1, out.readInt());
        assertEquals("body", text(out));
        assertEquals("image/png", text(out));
        assertEquals(2, out.readInt());
        assertEquals(0x0102, out.readShort());
        assertEquals(-1, out.readInt());
        assertEquals(-1, out.readInt());
        assertFalse(out.isReadable());
        out.release();
        assertEquals(0, body.refCnt());
    }

    @Test
    void whatWaitsIsTakenTogether() {
        RequestQueue shared = new RequestQueue(20, 4, memory);
        for (int i = 0; i < 7; i++) {
            shared.offer(request(60, 1));
        }
        assertEquals(4, taken(shared).size(), "at most so many");
        assertEquals(3, taken(shared).size());
        PendingRequest large = request(60, (int) MEGABYTE + 1);
        shared.offer(request(60, 1));
        shared.offer(large);
        shared.offer(request(60, 1));
        assertEquals(1, taken(shared).size(), "the next one goes alone");
    }

    @Test
    void ofABatchWhoseWorkerDiesEachIsTriedAgainAlone() {
        RequestQueue shared = new RequestQueue(20, 4, memory);
        List<PendingRequest> offered = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            offered.add(request(60, 1));
            shared.offer(offered.get(i));
        }
        List<PendingRequest> batch = taken(shared);
        assertEquals(offered, batch);
        shared.remove(offered.get(1));
        shared.died(batch);
        failures.clear(); // of the one whose caller has gone
        assertEquals(List.of(offered.get(0)), taken(shared));
        assertEquals(List.of(offered.get(2)), taken(shared));
        PendingRequest.encode(List.of(offered.get(2)), Unpooled.buffer().alloc()); // its body is still there
        assertEquals(List.of(), failures);
        shared.died(List.of(offered.get(2)));
        assertEquals(List.of(500), failures);
        assertEquals(1, shared.queued(), "the first one is still with its worker");
    }

    private static String text(ByteBuf in) {
        return in.readCharSequence(in.readInt(), java.nio.charset.StandardCharsets.UTF_8).toString();
    }
}
